//! Each way to misbehave ends as an error of that call, within its time.

use std::time::{Duration, Instant};

use oms_core::payments::{GatewayError, PaymentReport, Secret};

use super::guests::{self, Logs, Sandbox, hostile_account};

/// What the plugin's own manifest gives one call.
const DEADLINE: Duration = Duration::from_secs(4);

/// How late a call may end.
const SLACK: Duration = Duration::from_millis(50);

/// A machine that has other things to do may come too late once or twice by itself.
const TRIES: usize = 3;

/// What the host said, after it was seen to say that nothing can have happened.
async fn refused(t: &Sandbox, behaviour: &str) -> String {
    let error = in_time(t, behaviour).await.unwrap_err();
    let GatewayError::Unavailable(cause) = error else {
        panic!("{behaviour}: {error:?}");
    };
    assert!(cause.starts_with("plugin hostile 0.1.0: "), "{cause}");
    t.neighbour().await.unwrap();
    cause
}

/// A call that ends in time, however it ends.
async fn in_time(t: &Sandbox, behaviour: &str) -> Result<PaymentReport, GatewayError> {
    for _ in 0..TRIES {
        let started = Instant::now();
        let ended = t.start(&hostile_account(behaviour)).await;
        let took = started.elapsed();
        println!("{behaviour}: {took:?} of {DEADLINE:?}");
        if took < DEADLINE + SLACK {
            return ended;
        }
    }
    panic!("{behaviour} does not end in time");
}

#[tokio::test]
async fn a_guest_that_does_not_answer() {
    let t = Sandbox::hostile().await;
    for (behaviour, says) in [
        ("panic", "it broke"),
        ("loop", "computed for more than 1 s"),
        ("loop-in-realloc", "computed for more than 1 s"),
        ("memory", "memory"),
        ("gib-string", ""),
        ("recursion", "called itself too deeply"),
        ("sleep", "did not answer in time"),
        ("exit", "exit"),
        ("random", "1048576 random bytes at once; 4096 may be"),
        ("stderr-flood", ""),
    ] {
        let cause = refused(&t, behaviour).await;
        assert!(guests::says(&cause, says), "{behaviour}: {cause}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_the_contract() {
    let t = Sandbox::hostile().await;
    for (behaviour, says) in [
        ("large-state", "state has 8193 bytes, 8192 are taken"),
        ("huge-answer", "fuel"),
        ("huge-list", ""),
        ("script-url", "redirect url that is not http or https"),
        ("negative-total", "captured is -1"),
        ("nul", "NUL"),
    ] {
        let cause = refused(&t, behaviour).await;
        assert!(guests::says(&cause, says), "{behaviour}: {cause}");
    }
}

#[tokio::test]
async fn neighbours_go_on() {
    let t = Sandbox::hostile().await;
    t.neighbour().await.unwrap();
    // On one thread, so that every neighbour shares it with the guests that loop.
    let loops = async {
        let account = hostile_account("loop");
        tokio::join!(t.start(&account), t.start(&account), t.start(&account))
    };
    let mut loops = std::pin::pin!(loops);
    let (mut calls, mut slowest) = (0, Duration::ZERO);
    let ended = loop {
        let started = Instant::now();
        tokio::select! {
            biased;
            answered = t.neighbour() => {
                answered.unwrap();
                calls += 1;
                slowest = slowest.max(started.elapsed());
            }
            ended = &mut loops => break ended,
        }
    };
    assert!(ended.0.is_err() && ended.1.is_err() && ended.2.is_err());
    assert!(
        calls >= 5,
        "{calls} calls of neighbours while three guests looped"
    );
    assert!(slowest < Duration::from_secs(1), "the slowest took {slowest:?}");
}

#[tokio::test]
async fn more_calls_than_permits_wait_their_turn() {
    let t = Sandbox::hostile().await;
    let calls = (0..100).map(|_| t.neighbour());
    for answered in futures_util::future::join_all(calls).await {
        answered.unwrap();
    }
}

#[tokio::test]
async fn there_is_nothing_to_see() {
    let t = Sandbox::hostile().await;
    assert_eq!(
        t.found(&hostile_account("look-around")).await,
        "variables 0, arguments 0, files 0, folder false, socket false, listener false"
    );
}

#[tokio::test]
async fn nothing_is_left_of_a_call() {
    let t = Sandbox::hostile().await;
    for _ in 0..3 {
        assert_eq!(t.found(&hostile_account("count")).await, "0");
    }
    assert_ne!(t.found(&hostile_account("leave-and-look")).await, "0");
    // Memory that is used again is used by the same plugin first.
    for _ in 0..5 {
        t.found(&hostile_account("leave-marks")).await;
        assert_eq!(t.found(&hostile_account("look-for-marks")).await, "0");
    }
}

#[tokio::test]
async fn a_secret_does_not_get_into_logs_or_errors() {
    let logs = Logs::capture();
    let t = Sandbox::hostile().await;
    let mut account = hostile_account("tell-secret");
    account
        .secrets
        .insert("api-key".into(), Secret::new("sk_live_\"quoted\"_4242"));
    let error = t.start(&account).await.unwrap_err();
    let GatewayError::Internal(said) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(said, "the key is ***");
    let logs = logs.text();
    assert!(logs.contains("the key is *** key=\"***\""), "{logs}");
    assert!(logs.contains("wrote to stderr: the key is ***"), "{logs}");
    assert!(logs.contains("a secret was revealed to a plugin"), "{logs}");
    assert!(!logs.contains("4242"), "{logs}");
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut() {
    let logs = Logs::capture();
    let t = Sandbox::hostile().await;
    t.start(&hostile_account("log-flood")).await.unwrap();
    let text = logs.text();
    let flood: usize = text
        .lines()
        .filter(|line| line.contains("flood"))
        .map(str::len)
        .sum();
    assert!((60_000..80_000).contains(&flood), "{flood} bytes");
    assert!(text.contains("the rest is dropped"));
}

#[tokio::test]
async fn a_million_log_lines_end_in_time() {
    let t = Sandbox::hostile().await;
    // A fast machine gets through with them: what counts is the end.
    let _ = in_time(&t, "log-million").await;
    t.neighbour().await.unwrap();
}

#[tokio::test]
async fn accounts_do_not_see_each_other() {
    let t = Sandbox::hostile().await;
    let with = |name: &str, behaviour: &str| {
        let mut account = hostile_account(behaviour);
        account.name = name.into();
        account.config.insert("note".into(), format!("of {name}"));
        account
    };
    t.start(&with("one", "keep")).await.unwrap();
    assert_eq!(t.found(&with("one", "recall")).await, "of one");
    assert_eq!(t.found(&with("two", "recall")).await, "nothing");
    t.clock.advance(Duration::from_secs(61));
    assert_eq!(
        t.found(&with("one", "recall")).await,
        "nothing",
        "it expired by the library's clock"
    );

    let mut owner = with("one", "secret-name");
    owner.secrets.insert("only-here".into(), Secret::new("s3cret"));
    assert_eq!(t.found(&owner).await, "true");
    assert_eq!(t.found(&with("two", "secret-name")).await, "false");
}
