//! Stock: levels, adjustments, movements.

use crate::support::each_db;

#[tokio::test]
async fn sellers_of_the_tests() {
    each_db(async |t| {
        let (seller, _) = t.seller_with("MUG-1", 1299, 5).await;
        assert!(seller.require_verified().is_ok());
    })
    .await;
}
