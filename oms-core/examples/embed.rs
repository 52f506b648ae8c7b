//! A shop in one file: SQLite and a gateway of its own, no server.
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use async_trait::async_trait;
use oms_core::catalog::{NewBusiness, NewProduct};
use oms_core::inventory::Adjust;
use oms_core::orders::{OrderState, PlaceOrder};
use oms_core::payments::*;
use oms_core::{Actor, Money, Oms, users::Register};

/// Cash on the counter: taken when it is asked for.
struct Cash(GatewayInfo);

fn no<T>() -> Result<T, GatewayError> {
    Err(GatewayError::Unsupported("cash is final".into()))
}

#[async_trait]
#[rustfmt::skip]
impl PaymentGateway for Cash {
    fn info(&self) -> &GatewayInfo { &self.0 }
    async fn start(&self, _: &Account, request: StartRequest) -> Result<PaymentReport, GatewayError> {
        Ok(PaymentReport::captured(request.payment.to_string(), request.amount))
    }
    async fn complete(&self, _: &Account, _: CompleteRequest) -> Result<PaymentReport, GatewayError> { no() }
    async fn capture(&self, _: &Account, _: CaptureRequest) -> Result<PaymentReport, GatewayError> { no() }
    async fn cancel(&self, _: &Account, _: CancelRequest) -> Result<PaymentReport, GatewayError> { no() }
    async fn refund(&self, _: &Account, _: RefundRequest) -> Result<RefundReport, GatewayError> { no() }
    async fn sync(&self, _: &Account, _: SyncRequest) -> Result<Snapshot, GatewayError> { no() }
    async fn receive(&self, _: &Account, _: Proof, _: Delivery) -> Result<Received, WebhookError> {
        Err(WebhookError::MissingSignature("cash sends no webhooks".into()))
    }
}

#[tokio::main]
#[rustfmt::skip]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?; // yours would be a file that stays
    let oms = Oms::builder(format!("sqlite://{}/shop.db", folder.path().display()))
        .gateway(Cash(GatewayInfo::native("cash")))
        .account(Account::new("till", "cash"))
        .connect()
        .await?;
    oms.migrate().await?;
    let (username, email, password) = ("ann".into(), "ann@example.com".into(), "a mug of tea".into());
    let ann = oms.users().create_admin(&Actor::System, Register { username, email, password }).await?.actor();
    let shop = oms.catalog().create_business(&ann, NewBusiness::named("Ann's mugs")).await?;
    let mug = NewProduct::new(shop.id, "Mug", "MUG-1", Money::new(1299, "EUR".parse()?)?);
    oms.catalog().create_product(&ann, mug).await?;
    oms.inventory().adjust(&ann, Adjust::new("delivery-1".parse()?, "MUG-1", 10, "delivery")).await?;

    let placed = oms.orders().place(&ann, PlaceOrder::new("order-1".parse()?, [("MUG-1", 2)])).await?;
    oms.payments().start(&ann, placed.value.id, StartPayment::new("pay-1".parse()?, "till")).await?;
    let order = oms.orders().get(&ann, placed.value.id).await?;
    println!("order {} over {} is {}", order.number, order.total, order.state.as_str());
    assert_eq!(order.state, OrderState::Paid);
    oms.shutdown().await;
    Ok(())
}
