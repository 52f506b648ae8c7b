//! Which payments events are about.

use crate::db::Tx;
use crate::error::{Error, Result};
use crate::id::PaymentId;
use crate::payments::gateway::{Change, GatewayEvent};
use crate::payments::store::{self, Known, Place};

/// Of each event of these accounts: by our own id where the gateway repeats it, else by its own. Never another account's
/// payment.
pub(super) async fn all(tx: &mut Tx, events: &[(&str, &GatewayEvent)]) -> Result<Vec<Option<Place>>> {
    let relevant = || {
        events
            .iter()
            .filter(|(_, event)| event.change != Change::Irrelevant)
    };
    let ids: Vec<PaymentId> = relevant().filter_map(|(_, event)| event.payment).collect();
    let names = relevant().filter(|(_, event)| event.payment.is_none());
    let names: Vec<(&str, &str)> = names
        .filter_map(|(account, event)| Some((*account, event.reference.as_deref()?)))
        .collect();
    let mut known = store::by_ids(tx, &ids).await?;
    known.extend(store::by_references(tx, &names).await?);
    let mut places = Vec::with_capacity(events.len());
    for (account, event) in events {
        places.push(match event.change {
            Change::Irrelevant => None,
            _ => match among(&known, account, event) {
                Some(place) => Some(place),
                None => of_refund(tx, account, event).await?,
            },
        });
    }
    Ok(places)
}

fn among(known: &[Known], account: &str, event: &GatewayEvent) -> Option<Place> {
    let known = known.iter().filter(|known| known.account == account);
    let mut places = known.filter(|known| match event.payment {
        Some(id) => known.place.payment == id,
        None => event.reference.is_some() && known.reference == event.reference,
    });
    places.next().map(|known| known.place)
}

/// Some gateways name nothing but our id of the refund.
async fn of_refund(tx: &mut Tx, account: &str, event: &GatewayEvent) -> Result<Option<Place>> {
    let (None, Change::Refund { refund: Some(id), .. }) = (event.payment, &event.change) else {
        return Ok(None);
    };
    match store::payment_of_refund(tx, *id).await {
        Ok(payment) => store::of_account(tx, account, payment).await,
        Err(Error::NotFound(_)) => Ok(None),
        Err(e) => Err(e),
    }
}
