//! Parts that are nobody else's business, for `benches/pure.rs`. No promise is made about them.

pub use crate::orders::placement::Rehearsal;

use crate::error::Result;
use crate::id::OrderId;
use crate::page::{Page, PageRequest};

/// The cursor of a page of orders that ends with this one.
pub fn cursor_of(id: OrderId) -> String {
    let page = Page::cut(vec![id, id], 1, |id| *id);
    page.next_cursor.unwrap_or_default()
}

/// The order that a page begins after.
pub fn read_cursor(cursor: String) -> Result<Option<OrderId>> {
    let page = PageRequest {
        cursor: Some(cursor),
        limit: None,
    };
    page.after()
}
