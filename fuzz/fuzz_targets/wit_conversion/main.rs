//! Between the contract's types and the library's: what a guest answers, checked on its way in, and what it is asked.
#![cfg_attr(fuzzing, no_main)]

mod guest;
mod promises;
mod requests;

use arbitrary::Unstructured;
use oms_core::plugins::fuzzing as core;

use guest::{Guest, SECRET};

oms_fuzz::target!(run);

fn run(input: &[u8]) {
    let mut guest = Guest::new(Unstructured::new(input));
    // Bytes that are missing count as zeros, so that nothing of this fails.
    let _ = match guest.number(10) {
        0 => payment_report(&mut guest),
        1 => refund_report(&mut guest),
        2 => snapshot(&mut guest),
        3 => payment_error(&mut guest),
        4 => webhook_error(&mut guest),
        5 => events(&mut guest),
        6 => hints(&mut guest),
        7 => reply(&mut guest),
        8 => features(&mut guest),
        _ => requests::all(&mut guest),
    };
}

fn payment_report(guest: &mut Guest<'_>) -> arbitrary::Result<()> {
    let said = guest.payment_result()?;
    match core::payment_report(said.clone()) {
        Ok(read) => promises::payment(&said, &read),
        Err(why) => guest.was_odd(&why, &said),
    }
    Ok(())
}

fn refund_report(guest: &mut Guest<'_>) -> arbitrary::Result<()> {
    let said = guest.refund_result()?;
    let currency = guest.choose(&["EUR", "JPY", ""])?.parse().ok();
    match core::refund_report(said.clone(), currency) {
        Ok(read) => promises::refund(&said, &read, currency),
        Err(why) => {
            let other = currency.is_some_and(|currency| currency.code() != "EUR") && said.amount.is_some();
            if !other {
                guest.was_odd(&why, &said);
            }
        }
    }
    Ok(())
}

fn snapshot(guest: &mut Guest<'_>) -> arbitrary::Result<()> {
    let said = guest.snapshot()?;
    match core::snapshot(said.clone()) {
        Ok(read) => {
            promises::payment(&said.payment, &read.payment);
            assert_eq!(read.refunds.len(), said.refunds.len());
            assert!(read.refunds.len() <= 500, "{} refunds", read.refunds.len());
            let currency = read
                .payment
                .totals
                .currency
                .as_deref()
                .map(|code| code.parse().expect("it was checked"));
            for (said, read) in said.refunds.iter().zip(&read.refunds) {
                promises::refund(said, read, currency);
            }
        }
        Err(why) => guest.was_odd(&why, &said),
    }
    Ok(())
}

fn payment_error(guest: &mut Guest<'_>) -> arbitrary::Result<()> {
    let said = guest.payment_error()?;
    let read = core::payment_error(said.clone(), |text| text.replace(SECRET, "***"));
    promises::payment_error(&said, &read);
    Ok(())
}

fn webhook_error(guest: &mut Guest<'_>) -> arbitrary::Result<()> {
    let said = guest.webhook_error()?;
    let read = core::webhook_error(said.clone(), |text| text.replace(SECRET, "***"));
    promises::webhook_error(&said, &read);
    Ok(())
}

fn events(guest: &mut Guest<'_>) -> arbitrary::Result<()> {
    let said = guest.events()?;
    match core::events(said.clone()) {
        Ok(read) => {
            assert_eq!(read.len(), said.len());
            assert!(read.len() <= 100, "{} events", read.len());
            for (said, read) in said.iter().zip(&read) {
                promises::event(said, read);
            }
        }
        Err(why) => guest.was_odd(&why, &said),
    }
    Ok(())
}

fn hints(guest: &mut Guest<'_>) -> arbitrary::Result<()> {
    let said = guest.names()?;
    match core::hints(said.clone()) {
        Ok(read) => {
            assert_eq!(read, said);
            assert!(read.len() <= 100);
            read.iter().for_each(|name| promises::name(name));
        }
        Err(why) => guest.was_odd(&why, &said),
    }
    Ok(())
}

fn reply(guest: &mut Guest<'_>) -> arbitrary::Result<()> {
    let said = guest.reply()?;
    match core::reply(said.clone()) {
        Ok(read) => promises::reply(&said, &read),
        Err(why) => guest.was_odd(&why, &said),
    }
    Ok(())
}

fn features(guest: &mut Guest<'_>) -> arbitrary::Result<()> {
    let flags = guest.features()?;
    promises::features(flags, core::features(flags));
    Ok(())
}
