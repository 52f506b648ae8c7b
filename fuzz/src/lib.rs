//! What the fuzz targets share. A target takes bytes and panics when a promise of the code does not hold; `README.md`
//! says which promises these are, and how an input is laid out.

pub mod delivery;
pub mod host;
pub mod json;
pub mod standard_webhooks;
pub mod webhook;

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Makes `fn(&[u8])` a fuzz target, and in a build without cargo-fuzz a program that runs files through it.
#[macro_export]
macro_rules! target {
    ($run:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $run(input));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            $crate::replay($run)
        }
    };
}

/// Runs the files that the command line names, and those in the folders that it names.
pub fn replay(run: fn(&[u8])) -> io::Result<()> {
    let mut inputs = 0;
    for path in env::args_os().skip(1) {
        for file in files(Path::new(&path))? {
            println!("{}", file.display());
            run(&fs::read(&file)?);
            inputs += 1;
        }
    }
    println!("{inputs} inputs ran");
    Ok(())
}

fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files: Vec<PathBuf> = fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    files.sort();
    Ok(files)
}
