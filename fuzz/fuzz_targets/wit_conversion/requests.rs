//! What a guest is asked says exactly what the library asks.

use arbitrary::Result;
use oms_core::payments::{
    Call, CancelRequest, CaptureMode, CaptureRequest, CompleteRequest, Customer, Delivery, GatewayAddress,
    RefundRequest, StartRequest, SyncRequest,
};
use oms_core::plugins::fuzzing::{gateway as wg, types as wt, webhooks as ww};
use oms_core::{Money, PaymentId, RefundId, Timestamp};
use uuid::Uuid;

use crate::guest::Guest;

pub(crate) fn all(guest: &mut Guest<'_>) -> Result<()> {
    match guest.number(7) {
        0 => start(guest),
        1 => complete(guest),
        2 => capture(guest),
        3 => cancel(guest),
        4 => refund(guest),
        5 => sync(guest),
        _ => delivery(guest),
    }
}

fn start(guest: &mut Guest<'_>) -> Result<()> {
    let asked = StartRequest {
        call: make_call(guest)?,
        payment: payment(guest)?,
        order_number: guest.text()?,
        amount: make_money(guest)?,
        capture: guest.choose(&[CaptureMode::Automatic, CaptureMode::Manual])?,
        instrument: guest.maybe(Guest::text)?,
        instrument_data: guest.pairs()?,
        customer: Customer {
            id: guest.maybe(Guest::text)?,
            email: guest.maybe(Guest::text)?,
            phone: guest.maybe(Guest::text)?,
            ip: guest.maybe(Guest::text)?,
            billing: guest.maybe(make_address)?,
            shipping: guest.maybe(make_address)?,
        },
        description: guest.maybe(Guest::text)?,
        return_url: guest.maybe(Guest::text)?,
        cancel_url: guest.maybe(Guest::text)?,
        webhook_url: guest.maybe(Guest::text)?,
        off_session: guest.yes()?,
        metadata: guest.pairs()?,
    };
    let said = wg::StartRequest::from(asked.clone());
    call(&asked.call, &said.call);
    assert_eq!(said.payment_id.parse(), Ok(asked.payment));
    assert_eq!(said.order_number, asked.order_number);
    money(asked.amount, &said.amount);
    assert_eq!(
        asked.capture == CaptureMode::Manual,
        matches!(said.capture, wt::CaptureMode::Manual)
    );
    assert_eq!(
        (said.instrument, said.instrument_data),
        (asked.instrument, asked.instrument_data)
    );
    assert_eq!(
        (said.description, said.off_session),
        (asked.description, asked.off_session)
    );
    assert_eq!(
        (said.return_url, said.cancel_url),
        (asked.return_url, asked.cancel_url)
    );
    assert_eq!(
        (said.webhook_url, said.metadata),
        (asked.webhook_url, asked.metadata)
    );
    let (one, other) = (asked.customer, said.customer);
    assert_eq!(
        (other.id, other.email, other.phone, other.ip),
        (one.id, one.email, one.phone, one.ip)
    );
    address(one.billing, other.billing);
    address(one.shipping, other.shipping);
    Ok(())
}

fn complete(guest: &mut Guest<'_>) -> Result<()> {
    let asked = CompleteRequest {
        call: make_call(guest)?,
        payment: payment(guest)?,
        reference: guest.text()?,
        amount: make_money(guest)?,
        state: guest.maybe(Guest::text)?,
        params: guest.pairs()?,
        body: guest.maybe(Guest::bytes)?,
    };
    let said = wg::CompleteRequest::from(asked.clone());
    call(&asked.call, &said.call);
    assert_eq!(said.payment_id.parse(), Ok(asked.payment));
    money(asked.amount, &said.amount);
    assert_eq!((said.reference, said.state), (asked.reference, asked.state));
    assert_eq!((said.params, said.body), (asked.params, asked.body));
    Ok(())
}

fn capture(guest: &mut Guest<'_>) -> Result<()> {
    let asked = CaptureRequest {
        call: make_call(guest)?,
        payment: payment(guest)?,
        reference: guest.text()?,
        state: guest.maybe(Guest::text)?,
        amount: make_money(guest)?,
        final_capture: guest.yes()?,
    };
    let said = wg::CaptureRequest::from(asked.clone());
    call(&asked.call, &said.call);
    assert_eq!(said.payment_id.parse(), Ok(asked.payment));
    money(asked.amount, &said.amount);
    assert_eq!((said.reference, said.state), (asked.reference, asked.state));
    assert_eq!(said.final_capture, asked.final_capture);
    Ok(())
}

fn cancel(guest: &mut Guest<'_>) -> Result<()> {
    let asked = CancelRequest {
        call: make_call(guest)?,
        payment: payment(guest)?,
        reference: guest.text()?,
        state: guest.maybe(Guest::text)?,
        reason: guest.maybe(Guest::text)?,
    };
    let said = wg::CancelRequest::from(asked.clone());
    call(&asked.call, &said.call);
    assert_eq!(said.payment_id.parse(), Ok(asked.payment));
    assert_eq!(
        (said.reference, said.state, said.reason),
        (asked.reference, asked.state, asked.reason)
    );
    Ok(())
}

fn refund(guest: &mut Guest<'_>) -> Result<()> {
    let asked = RefundRequest {
        call: make_call(guest)?,
        payment: payment(guest)?,
        refund: RefundId::from_uuid(uuid(guest)?),
        reference: guest.text()?,
        capture_reference: guest.maybe(Guest::text)?,
        state: guest.maybe(Guest::text)?,
        amount: make_money(guest)?,
        reason: guest.maybe(Guest::text)?,
    };
    let said = wg::RefundRequest::from(asked.clone());
    call(&asked.call, &said.call);
    assert_eq!(said.payment_id.parse(), Ok(asked.payment));
    assert_eq!(said.refund_id.parse(), Ok(asked.refund));
    money(asked.amount, &said.amount);
    assert_eq!(
        (said.reference, said.state, said.reason),
        (asked.reference, asked.state, asked.reason)
    );
    assert_eq!(said.capture_reference, asked.capture_reference);
    Ok(())
}

fn sync(guest: &mut Guest<'_>) -> Result<()> {
    let asked = SyncRequest {
        call: make_call(guest)?,
        payment: payment(guest)?,
        reference: guest.maybe(Guest::text)?,
        state: guest.maybe(Guest::text)?,
    };
    let said = wg::SyncRequest::from(asked.clone());
    call(&asked.call, &said.call);
    assert_eq!(said.payment_id.parse(), Ok(asked.payment));
    assert_eq!((said.reference, said.state), (asked.reference, asked.state));
    Ok(())
}

/// Order and duplicates of headers are kept, and every byte: a signature may be over any of it.
fn delivery(guest: &mut Guest<'_>) -> Result<()> {
    let asked = Delivery {
        method: guest.text()?,
        url: guest.text()?,
        query: guest.text()?,
        headers: guest.several(64, |guest| Ok((guest.text()?, guest.bytes()?)))?,
        body: guest.bytes()?,
        received_at: time(guest)?,
        remote_ip: guest.maybe(Guest::text)?,
        tolerance_seconds: guest.choose(&[1, 300, u32::MAX])?,
    };
    let said = ww::Delivery::from(asked.clone());
    assert_eq!(
        (said.method, said.url, said.query),
        (asked.method, asked.url, asked.query)
    );
    assert_eq!((said.headers, said.body), (asked.headers, asked.body));
    assert_eq!(
        (said.remote_ip, said.tolerance_seconds),
        (asked.remote_ip, asked.tolerance_seconds)
    );
    assert_eq!(said.received_at_ms, millis(asked.received_at));
    Ok(())
}

fn make_call(guest: &mut Guest<'_>) -> Result<Call> {
    Ok(Call {
        idempotency_key: guest.text()?,
        attempt: guest.choose(&[0, 1, 2, u32::MAX])?,
        now: time(guest)?,
        test_mode: guest.yes()?,
    })
}

fn call(asked: &Call, said: &wg::Call) {
    assert_eq!(said.idempotency_key, asked.idempotency_key);
    assert_eq!((said.attempt, said.test_mode), (asked.attempt, asked.test_mode));
    assert_eq!(said.now_ms, millis(asked.now));
}

/// There is no time before 1970 in the contract.
fn millis(time: Timestamp) -> u64 {
    time.as_millis().max(0) as u64
}

fn time(guest: &mut Guest<'_>) -> Result<Timestamp> {
    let micros = guest.choose(&[0, -1, 1_767_323_045_678_901, i64::MAX, i64::MIN])?;
    Ok(Timestamp::from_micros(micros))
}

fn make_money(guest: &mut Guest<'_>) -> Result<Money> {
    let currency = guest
        .choose(&["EUR", "JPY", "KWD", "CLF"])?
        .parse()
        .expect("these are currencies");
    let minor = guest.choose(&[0, 1, 1_999, Money::MAX])?;
    Ok(Money::new(minor, currency).expect("these are amounts"))
}

/// The same number, also for those who want decimals.
fn money(asked: Money, said: &wt::Money) {
    assert_eq!(said.minor, asked.minor());
    assert_eq!(said.currency, asked.currency().code());
    let digits = match said.currency.as_str() {
        "JPY" => 0,
        "KWD" => 3,
        "CLF" => 4,
        _ => 2,
    };
    assert_eq!(said.exponent, digits);
}

fn make_address(guest: &mut Guest<'_>) -> Result<GatewayAddress> {
    Ok(GatewayAddress {
        name: guest.maybe(Guest::text)?,
        line1: guest.maybe(Guest::text)?,
        line2: guest.maybe(Guest::text)?,
        city: guest.maybe(Guest::text)?,
        region: guest.maybe(Guest::text)?,
        postal_code: guest.maybe(Guest::text)?,
        country: guest.maybe(Guest::text)?,
    })
}

fn address(asked: Option<GatewayAddress>, said: Option<wg::Address>) {
    let said = said.map(|said| GatewayAddress {
        name: said.name,
        line1: said.line1,
        line2: said.line2,
        city: said.city,
        region: said.region,
        postal_code: said.postal_code,
        country: said.country,
    });
    assert_eq!(said, asked);
}

fn payment(guest: &mut Guest<'_>) -> Result<PaymentId> {
    Ok(PaymentId::from_uuid(uuid(guest)?))
}

fn uuid(guest: &mut Guest<'_>) -> Result<Uuid> {
    let bytes = guest.bytes()?;
    let mut all = [0; 16];
    all.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    Ok(Uuid::from_bytes(all))
}
