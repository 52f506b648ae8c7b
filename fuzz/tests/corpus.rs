//! The inputs that are kept run through their targets, without cargo-fuzz: what was mended once stays so.

use std::path::Path;
use std::process::Command;

fn replay(program: &str, target: &str) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let output = Command::new(program).arg(&corpus).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{trouble}");
    assert!(
        !said.ends_with("\n0 inputs ran\n"),
        "{} is empty",
        corpus.display()
    );
}

macro_rules! targets {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            replay(env!(concat!("CARGO_BIN_EXE_", stringify!($name))), stringify!($name));
        }
    )*};
}

targets! { receive_mock receive_stripe receive_adyen receive_paypal receive_standard_webhooks }

#[cfg(feature = "core")]
targets! { manifest wit_conversion }
