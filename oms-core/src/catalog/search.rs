//! Lists of products: filters, orders, and cursors that go on after a key, so that what comes in or goes meanwhile
//! neither repeats nor hides anything else.

use serde::{Deserialize, Serialize};

use crate::db::{Tx, run};
use crate::error::{Check, Result};
use crate::id::{BusinessId, ProductId};
use crate::money::{Currency, Money};
use crate::page::{Page, PageRequest};
use crate::text;

/// Which products to list; what is given must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProductFilter {
    /// A part of the name, without case.
    pub name: Option<String>,
    /// The whole category, without case.
    pub category: Option<String>,
    /// The seller.
    pub business: Option<BusinessId>,
    /// At least one variant costs this.
    pub price: Option<PriceRange>,
    /// A part of the name, category or description, or of a variant's SKU or name; without case.
    pub text: Option<String>,
    /// The order of the list.
    pub sort: ProductSort,
}

/// Prices in one currency, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceRange {
    /// Other currencies do not match.
    pub currency: Currency,
    /// Minor units.
    pub min: Option<i64>,
    /// Minor units.
    pub max: Option<i64>,
}

/// The order of a list of products.
///
/// The price of a product is that of its cheapest variant that matches the filter, in minor units: a shop with several
/// currencies gives one in [`ProductFilter::price`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ProductSort {
    #[default]
    Newest,
    Name,
    NameDescending,
    Price,
    PriceDescending,
}

impl ProductSort {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Newest,
        Self::Name,
        Self::NameDescending,
        Self::Price,
        Self::PriceDescending,
    ];

    /// Its spelling in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Name => "name",
            Self::NameDescending => "-name",
            Self::Price => "price",
            Self::PriceDescending => "-price",
        }
    }

    /// Reads the spelling of [`ProductSort::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// The column that is compared before the id, and the direction of both.
    const fn order(self) -> (Option<&'static str>, Direction) {
        match self {
            Self::Newest => (None, DESCENDING),
            Self::Name => (Some(NAME), ASCENDING),
            Self::NameDescending => (Some(NAME), DESCENDING),
            Self::Price => (Some(PRICE), ASCENDING),
            Self::PriceDescending => (Some(PRICE), DESCENDING),
        }
    }
}

struct Direction {
    after: &'static str,
    order: &'static str,
}

const ASCENDING: Direction = Direction {
    after: " > ",
    order: "",
};
const DESCENDING: Direction = Direction {
    after: " < ",
    order: " DESC",
};

/// Where the next page begins. It holds the order too: a cursor of one order means nothing in another.
#[derive(Serialize, Deserialize)]
struct Cursor {
    sort: ProductSort,
    name: Option<String>,
    price: Option<i64>,
    id: ProductId,
}

/// A filter that was checked, with the keys that the database compares.
pub(super) struct Query {
    filter: ProductFilter,
    after: Option<Cursor>,
    limit: i64,
}

#[derive(sqlx::FromRow)]
pub(super) struct Hit {
    pub(super) id: ProductId,
    name_key: String,
    /// Only read in an order by price.
    price: i64,
}

impl Query {
    pub(super) fn new(filter: ProductFilter, page: &PageRequest) -> Result<Self> {
        let mut check = Check::default();
        let wanted = [
            ("/name", &filter.name),
            ("/category", &filter.category),
            ("/text", &filter.text),
        ];
        for (pointer, value) in wanted {
            if let Some(value) = value {
                check.take(pointer, text::check(value, 200));
            }
        }
        if let Some(PriceRange { min, max, .. }) = filter.price {
            let ends = [("/min_price", min), ("/max_price", max)];
            for (pointer, value) in ends {
                let fits = value.is_none_or(|v| (0..=Money::MAX).contains(&v));
                check.that(fits, pointer, "must be an amount in minor units, not negative");
            }
        }
        let after: Option<Cursor> = page.after()?;
        let same = after.as_ref().is_none_or(|cursor| cursor.fits(filter.sort));
        check.that(same, "/cursor", "is not a cursor of this list");
        check.done()?;
        Ok(Self {
            filter,
            after,
            limit: page.limit()?,
        })
    }
}

impl Cursor {
    fn new(sort: ProductSort, hit: &Hit) -> Self {
        let column = sort.order().0;
        Self {
            sort,
            name: (column == Some(NAME)).then(|| hit.name_key.clone()),
            price: (column == Some(PRICE)).then_some(hit.price),
            id: hit.id,
        }
    }

    /// A cursor comes from outside: it may hold anything.
    fn fits(&self, sort: ProductSort) -> bool {
        let column = sort.order().0;
        let name = self.name.as_ref().is_none_or(|name| !name.contains('\0'));
        self.sort == sort
            && name
            && self.name.is_some() == (column == Some(NAME))
            && self.price.is_some() == (column == Some(PRICE))
    }
}

const NAME: &str = "p.name_key";
const PRICE: &str = "c.price";

/// What stands before and after the conditions on variants. Only an order by price needs all prices of the catalog;
/// the others ask product by product, so that a page costs what it shows.
const CHEAPEST: (&str, &str) = (
    "SELECT p.id, p.name_key, c.price FROM oms_product p
     JOIN (SELECT v.product_id, MIN(v.price) AS price FROM oms_variant v WHERE v.deleted_at IS NULL",
    " GROUP BY v.product_id) c ON c.product_id = p.id WHERE p.deleted_at IS NULL",
);
const ANY: (&str, &str) = (
    "SELECT p.id, p.name_key, CAST(0 AS BIGINT) AS price FROM oms_product p
     WHERE p.deleted_at IS NULL AND EXISTS (
         SELECT 1 FROM oms_variant v WHERE v.product_id = p.id AND v.deleted_at IS NULL",
    ")",
);

/// The page's products by id, in order.
pub(super) async fn find(tx: &mut Tx, query: &Query) -> Result<Page<Hit>> {
    let filter = &query.filter;
    let (column, direction) = filter.sort.order();
    let variants = if column == Some(PRICE) { CHEAPEST } else { ANY };
    let rows: Vec<Hit> = run!(tx, |conn| {
        let mut sql = sqlx::QueryBuilder::new(variants.0);
        if let Some(range) = &filter.price {
            sql.push(" AND v.currency = ")
                .push_bind(range.currency.code().to_owned());
            if let Some(min) = range.min {
                sql.push(" AND v.price >= ").push_bind(min);
            }
            if let Some(max) = range.max {
                sql.push(" AND v.price <= ").push_bind(max);
            }
        }
        sql.push(variants.1);
        if let Some(business) = filter.business {
            sql.push(" AND p.business_id = ").push_bind(business);
        }
        if let Some(category) = &filter.category {
            sql.push(" AND p.category_key = ").push_bind(text::fold(category));
        }
        for (column, part) in [(NAME, &filter.name), ("p.search_text", &filter.text)] {
            if let Some(part) = part {
                sql.push(" AND ").push(column).push(" LIKE ");
                sql.push_bind(text::contains_pattern(part)).push(" ESCAPE '\\'");
            }
        }
        match (&query.after, column) {
            (Some(cursor), Some(column)) => {
                sql.push(" AND (")
                    .push(column)
                    .push(", p.id)")
                    .push(direction.after)
                    .push("(");
                match (&cursor.name, cursor.price) {
                    (Some(name), _) => sql.push_bind(name.clone()),
                    (None, price) => sql.push_bind(price),
                };
                sql.push(", ").push_bind(cursor.id).push(")");
            }
            (Some(cursor), None) => {
                sql.push(" AND p.id").push(direction.after).push_bind(cursor.id);
            }
            (None, _) => {}
        }
        sql.push(" ORDER BY ");
        if let Some(column) = column {
            sql.push(column).push(direction.order).push(", ");
        }
        sql.push("p.id").push(direction.order);
        sql.push(" LIMIT ").push_bind(query.limit + 1);
        sql.build_query_as().fetch_all(conn).await
    })?;
    Ok(Page::cut(rows, query.limit, |hit| Cursor::new(filter.sort, hit)))
}
