//! Starting the payment of an order.

use super::gateway::{CaptureMode, Customer, GatewayAddress, GatewayInfo};
use super::gateways::{self, Till, Work};
use super::model::{Payment, PaymentStatus, StartPayment};
use super::operation::{self, Begun};
use super::store::{
    self,
    attempts::{self, Attempt, Operation, StartMemo},
};
use crate::actor::Actor;
use crate::error::{Check, Error, Result};
use crate::id::{AttemptId, OrderId, PaymentId};
use crate::idempotency::{Claim, Claimed, Outcome};
use crate::oms::Oms;
use crate::orders::settle;
use crate::orders::{Address, Order, OrderState};
use crate::text;
use crate::time::Timestamp;

/// All three steps.
pub(super) async fn start(
    oms: Oms,
    actor: Actor,
    order: OrderId,
    command: StartPayment,
) -> Result<Outcome<Payment>> {
    let claim = claim(&actor, order, &command)?;
    let account = oms.inner.accounts.get(&command.account);
    let account = account.ok_or_else(|| Error::invalid("/account", "there is no such payment account"))?;
    // A replay needs no adapter, but one that is not there now answers "later" for both alike.
    let till = gateways::active(&oms, account, Work::Operation).await?;
    check(till.gateway.info(), &command)?;
    match begin(&oms, &actor, &till, order, command, &claim).await? {
        Begun::Before(attempt) => {
            let ended = operation::wait(&oms, attempt).await?;
            ended.payment().map(Outcome::replayed)
        }
        Begun::Now(begun) => {
            let (payment, attempt) = *begun;
            let ended = operation::carry_out(&oms, &actor, &till, &payment, &attempt).await?;
            ended.payment().map(Outcome::fresh)
        }
    }
}

fn claim(actor: &Actor, order: OrderId, command: &StartPayment) -> Result<Claim> {
    let fingerprint = (
        &command.account,
        &command.return_url,
        command.capture,
        &command.instrument,
        &command.instrument_data,
    );
    let target = order.to_string();
    Claim::new(
        actor,
        "payment.start",
        &target,
        &command.idempotency_key,
        &fingerprint,
    )
}

fn check(info: &GatewayInfo, command: &StartPayment) -> Result<()> {
    let mut check = Check::default();
    let manual = command.capture == CaptureMode::Manual;
    check.that(
        !manual || info.features.manual_capture,
        "/capture",
        "this account can only capture at once",
    );
    if let Some(url) = &command.return_url {
        check.take("/return_url", text::check(url, 2_000));
        check.take("/return_url", web_address(url));
    }
    if let Some(instrument) = &command.instrument {
        check.take("/instrument", text::check(instrument, 4_000));
    }
    let size: usize = command
        .instrument_data
        .iter()
        .map(|(k, v)| k.len() + v.len())
        .sum();
    check.that(size <= 16_384, "/instrument_data", "must have at most 16 KiB");
    check.done()
}

/// What browsers would read another way than it looks is refused: they drop line breaks and blanks, and take a
/// backslash for a slash.
fn web_address(url: &str) -> std::result::Result<(), String> {
    let scheme = ["https://", "http://"].into_iter().find(|scheme| {
        url.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    let Some(rest) = scheme.and_then(|scheme| url.get(scheme.len()..)) else {
        return Err("must begin with https:// or http://".into());
    };
    if url
        .chars()
        .any(|c| c.is_control() || c.is_whitespace() || c == '\\')
    {
        return Err("must not hold blanks, control characters or backslashes".into());
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() || host.starts_with(':') {
        return Err("must name a host".into());
    }
    Ok(())
}

/// Step 1.
async fn begin(
    oms: &Oms,
    actor: &Actor,
    till: &Till,
    order: OrderId,
    command: StartPayment,
    claim: &Claim,
) -> Result<Begun> {
    let now = oms.now();
    let id = PaymentId::new(now);
    let attempt = Attempt::new(id, Operation::Start, now).claimed_by(claim);
    let mut tx = oms.db().write().await?;
    if let Claimed::Replay(earlier) = claim.take(&mut tx, attempt.id.uuid(), now).await? {
        tx.rollback().await?;
        return Ok(Begun::Before(AttemptId::from_uuid(earlier)));
    }
    let mut order = settle::load_locked(&mut tx, order).await?;
    actor.require_owner_or_operator(order.user, "order")?;
    payable(&order, till.gateway.info())?;
    if let Some(open) = store::open_of_order(&mut tx, order.id).await? {
        return Err(Error::PaymentInProgress(open));
    }
    let mut attempt = attempt;
    attempt.amount = Some(order.total.minor());
    attempt.memo.start = Some(memo(oms, &order, &command));
    let payment = payment(id, &order, till, &command, now);
    store::insert(&mut tx, &payment).await?;
    attempts::save(&mut tx, &attempt).await?;
    let hold = till.account.order_hold;
    settle::payment_started(&mut tx, &mut order, id, hold, actor, now).await?;
    tx.commit().await?;
    oms.ring();
    Ok(Begun::Now(Box::new((payment, attempt))))
}

fn payable(order: &Order, info: &GatewayInfo) -> Result<()> {
    let not = |detail| Error::InvalidState {
        what: "order",
        state: order.state.as_str().into(),
        detail,
    };
    if order.state != OrderState::AwaitingPayment {
        return Err(not("it does not wait for a payment"));
    }
    if order.total.minor() == 0 {
        return Err(not("there is nothing to pay"));
    }
    let code = order.currency.code();
    if info.currencies.is_empty() || info.currencies.iter().any(|c| c == code) {
        Ok(())
    } else {
        Err(Error::invalid("/account", format!("it does not take {code}")))
    }
}

fn payment(id: PaymentId, order: &Order, till: &Till, command: &StartPayment, now: Timestamp) -> Payment {
    let info = till.gateway.info();
    Payment {
        id,
        order: order.id,
        account: till.account.name.clone(),
        plugin_id: info.id.clone(),
        plugin_version: info.version.clone(),
        plugin_digest: info.digest.clone(),
        test_mode: till.account.test_mode,
        amount: order.total,
        capture: command.capture,
        status: PaymentStatus::Created,
        attention: None,
        reference: None,
        authorized: 0,
        captured: 0,
        refunded: 0,
        canceled: 0,
        decline_code: None,
        decline_message: None,
        next_action: None,
        state: None,
        method: Vec::new(),
        return_url: command.return_url.clone(),
        expires_at: None,
        sync_tries: 0,
        version: 1,
        created_at: now,
        updated_at: now,
        refunds: Vec::new(),
        captures: Vec::new(),
    }
}

fn memo(oms: &Oms, order: &Order, command: &StartPayment) -> StartMemo {
    StartMemo {
        order_number: order.number,
        instrument: command.instrument.clone(),
        instrument_data: command.instrument_data.clone(),
        customer: Customer {
            id: order.user.map(|user| user.to_string()),
            email: Some(order.email.clone()),
            phone: None,
            ip: command.customer_ip.clone(),
            billing: order.billing_address.as_ref().map(address),
            shipping: order.shipping_address.as_ref().map(address),
        },
        webhook_url: webhook_url(oms, &command.account),
    }
}

/// Where an account's gateway reaches us; none without a public address.
pub(crate) fn webhook_url(oms: &Oms, account: &str) -> Option<String> {
    let base = oms.inner.settings.public_url.as_ref()?;
    Some(format!("{base}/v1/webhooks/{account}"))
}

fn address(address: &Address) -> GatewayAddress {
    GatewayAddress {
        name: Some(address.name.clone()),
        line1: Some(address.line1.clone()),
        line2: address.line2.clone(),
        city: Some(address.city.clone()),
        region: address.region.clone(),
        postal_code: address.postal_code.clone(),
        country: Some(address.country.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_return_to() {
        for good in [
            "https://shop.example",
            "HTTP://[::1]:80/x?y#z",
            "https://shop.example/a%20b",
        ] {
            assert_eq!(web_address(good), Ok(()), "{good}");
        }
        for bad in [
            "javascript:x",
            "//shop.example",
            "https://",
            "https:///x",
            "https://:80/",
            "https://user@",
            "https://shop.example/\r\nx",
            "https://shop example/",
            "https://shop.example/\u{0}",
            "https://a\\b",
        ] {
            assert!(web_address(bad).is_err(), "{bad:?}");
        }
    }
}
