//! What is sold and by whom: types and their rules.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use crate::error::Check;
use crate::id::{BusinessId, ProductId, UserId, VariantId};
use crate::money::Money;
use crate::text;
use crate::time::Timestamp;

const MAX_NAME: usize = 200;
const MAX_DESCRIPTION: usize = 10_000;
const MAX_SHORT: usize = 100;

/// What a variant is called by people and machines: 1 to 64 letters, digits, `.`, `_` and `-`; case matters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sku(String);

impl Sku {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Sku {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if plain(text, 64) {
            Ok(Self(text.into()))
        } else {
            Err("must be 1 to 64 of the characters A-Z, a-z, 0-9, '.', '_' and '-'".into())
        }
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn plain(text: &str, max: usize) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=max).contains(&text.len()) && text.bytes().all(fits)
}

/// A business: somebody who sells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Business {
    pub id: BusinessId,
    pub owner: UserId,
    pub name: String,
    pub city: Option<String>,
    pub country: Option<String>,
    pub description: Option<String>,
    pub phone: Option<String>,
    /// Counts its changes; an update names the one it is based on.
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Open a business for the acting user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewBusiness {
    /// At most 200 characters.
    pub name: String,
    /// At most 100 characters.
    pub city: Option<String>,
    /// At most 100 characters.
    pub country: Option<String>,
    /// At most 10,000 characters.
    pub description: Option<String>,
    /// At most 100 characters.
    pub phone: Option<String>,
}

impl NewBusiness {
    /// A business with no more than a name.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            city: None,
            country: None,
            description: None,
            phone: None,
        }
    }
}

/// Change a business. `None` leaves a field as it is, `Some(None)` clears it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in NewBusiness")]
pub struct BusinessChanges {
    pub name: Option<String>,
    pub city: Option<Option<String>>,
    pub country: Option<Option<String>>,
    pub description: Option<Option<String>>,
    pub phone: Option<Option<String>>,
}

/// Which businesses to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BusinessFilter {
    /// All of them; everyone may see them.
    #[default]
    All,
    /// Those that the acting user owns.
    Mine,
}

impl Business {
    pub(super) fn open(new: NewBusiness, owner: UserId, now: Timestamp) -> Self {
        Self {
            id: BusinessId::new(now),
            owner,
            name: new.name,
            city: new.city,
            country: new.country,
            description: new.description,
            phone: new.phone,
            version: 1,
            created_at: now,
            updated_at: now,
        }
    }

    pub(super) fn apply(&mut self, changes: BusinessChanges) {
        set(&mut self.name, changes.name);
        set(&mut self.city, changes.city);
        set(&mut self.country, changes.country);
        set(&mut self.description, changes.description);
        set(&mut self.phone, changes.phone);
    }

    pub(super) fn check(&self, check: &mut Check) {
        check.take("/name", text::check(&self.name, MAX_NAME));
        optional(check, "/city", &self.city, MAX_SHORT);
        optional(check, "/country", &self.country, MAX_SHORT);
        optional(check, "/description", &self.description, MAX_DESCRIPTION);
        optional(check, "/phone", &self.phone, MAX_SHORT);
    }
}

/// A product with all its variants.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Product {
    pub id: ProductId,
    pub business: BusinessId,
    pub name: String,
    pub category: Option<String>,
    pub description: Option<String>,
    /// Names of registered media, in the order in which they are shown.
    pub images: Vec<String>,
    /// At least one, in the order in which they were added.
    pub variants: Vec<Variant>,
    /// Counts the changes of the product and of its variants; a change names the one it is based on.
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What is ordered and what has stock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Variant {
    pub id: VariantId,
    pub sku: Sku,
    /// What tells it from its siblings, such as "large".
    pub name: Option<String>,
    pub price: Money,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Put a product on sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProduct {
    /// Who sells it.
    pub business: BusinessId,
    /// At most 200 characters.
    pub name: String,
    /// At most 100 characters.
    pub category: Option<String>,
    /// At most 10,000 characters.
    pub description: Option<String>,
    /// 1 to [`Product::MAX_VARIANTS`].
    pub variants: Vec<NewVariant>,
    /// Names of registered media, at most [`Product::MAX_IMAGES`].
    pub images: Vec<String>,
}

impl NewProduct {
    /// A product with one variant and no more than a name.
    pub fn new(business: BusinessId, name: impl Into<String>, sku: impl Into<String>, price: Money) -> Self {
        Self {
            business,
            name: name.into(),
            category: None,
            description: None,
            variants: vec![NewVariant {
                sku: sku.into(),
                name: None,
                price,
            }],
            images: Vec::new(),
        }
    }
}

/// A variant to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVariant {
    /// See [`Sku`]; unique among all that is on sale.
    pub sku: String,
    /// At most 200 characters.
    pub name: Option<String>,
    /// For one unit.
    pub price: Money,
}

/// Change a product. `None` leaves a field as it is, `Some(None)` clears it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in NewProduct")]
pub struct ProductChanges {
    pub name: Option<String>,
    pub category: Option<Option<String>>,
    pub description: Option<Option<String>>,
    pub images: Option<Vec<String>>,
}

/// Change a variant. `None` leaves a field as it is, `Some(None)` clears it. Orders keep the price they were placed at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in NewVariant")]
pub struct VariantChanges {
    pub name: Option<Option<String>>,
    pub price: Option<Money>,
}

impl Product {
    /// The most variants of one product.
    pub const MAX_VARIANTS: usize = 100;
    /// The most images of one product.
    pub const MAX_IMAGES: usize = 20;

    /// Takes what is valid and notes the rest, so that the result may only be used when `check` is content.
    pub(super) fn create(new: NewProduct, now: Timestamp, check: &mut Check) -> Self {
        let count = (1..=Self::MAX_VARIANTS).contains(&new.variants.len());
        check.that(count, "/variants", "must be 1 to 100 variants");
        let mut skus = HashSet::new();
        let mut variants = Vec::new();
        for (i, new) in new.variants.into_iter().enumerate() {
            let at = format!("/variants/{i}");
            let fresh = skus.insert(new.sku.clone());
            check.that(fresh, &format!("{at}/sku"), "stands twice in this product");
            variants.extend(Variant::create(new, now, &at, check));
        }
        let product = Self {
            id: ProductId::new(now),
            business: new.business,
            name: new.name,
            category: new.category,
            description: new.description,
            images: new.images,
            variants,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        product.check(check);
        product
    }

    pub(super) fn apply(&mut self, changes: ProductChanges) {
        set(&mut self.name, changes.name);
        set(&mut self.category, changes.category);
        set(&mut self.description, changes.description);
        set(&mut self.images, changes.images);
    }

    pub(super) fn check(&self, check: &mut Check) {
        check.take("/name", text::check(&self.name, MAX_NAME));
        optional(check, "/category", &self.category, MAX_SHORT);
        optional(check, "/description", &self.description, MAX_DESCRIPTION);
        let count = self.images.len() <= Self::MAX_IMAGES;
        check.that(count, "/images", "must be at most 20 images");
    }

    /// What a search for any word of the product finds it by.
    pub(super) fn search_text(&self) -> String {
        let own = [
            Some(&self.name),
            self.category.as_ref(),
            self.description.as_ref(),
        ];
        let variants = self
            .variants
            .iter()
            .flat_map(|v| [Some(&v.sku.0), v.name.as_ref()]);
        let words: Vec<&str> = own
            .into_iter()
            .chain(variants)
            .flatten()
            .map(String::as_str)
            .collect();
        text::fold(&words.join("\n"))
    }
}

impl Variant {
    /// `at` is where the variant stands in the command.
    pub(super) fn create(new: NewVariant, now: Timestamp, at: &str, check: &mut Check) -> Option<Self> {
        optional(check, &format!("{at}/name"), &new.name, MAX_NAME);
        let sku = check.take(&format!("{at}/sku"), new.sku.parse())?;
        Some(Self {
            id: VariantId::new(now),
            sku,
            name: new.name,
            price: new.price,
            version: 1,
            created_at: now,
            updated_at: now,
        })
    }

    pub(super) fn apply(&mut self, changes: VariantChanges, check: &mut Check) {
        set(&mut self.name, changes.name);
        set(&mut self.price, changes.price);
        optional(check, "/name", &self.name, MAX_NAME);
    }
}

/// A file that products may show. Its bytes are kept by the embedding program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Chosen by the program from the bytes, such as their hash and an ending; what a [`Sku`] may hold, at most 200.
    pub name: String,
    /// Such as `image/png`.
    pub content_type: String,
    /// Its size.
    pub bytes: i64,
}

impl Media {
    pub(super) fn check(&self, check: &mut Check) {
        let name = "must be 1 to 200 of the characters A-Z, a-z, 0-9, '.', '_' and '-'";
        check.that(Self::is_name(&self.name), "/name", name);
        check.take("/content_type", text::check(&self.content_type, MAX_SHORT));
        check.that(self.bytes > 0, "/bytes", "must be more than 0");
    }

    pub(super) fn is_name(text: &str) -> bool {
        plain(text, 200)
    }
}

fn set<T>(field: &mut T, change: Option<T>) {
    if let Some(value) = change {
        *field = value;
    }
}

fn optional(check: &mut Check, pointer: &str, value: &Option<String>, max: usize) {
    if let Some(value) = value {
        check.take(pointer, text::check(value, max));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn skus() {
        for good in ["A", "mug-1", "a.b_c-D9", &"x".repeat(64)] {
            assert!(good.parse::<Sku>().is_ok(), "{good}");
        }
        for bad in ["", " ", "a b", "é", "a/b", "a\0", &"x".repeat(65)] {
            assert!(bad.parse::<Sku>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let variant = |sku: &str| NewVariant {
            sku: sku.into(),
            name: None,
            price: Money::zero("EUR".parse().unwrap()),
        };
        let mut check = Check::default();
        let now = Timestamp::from_millis(0);
        let new = NewProduct {
            business: BusinessId::new(now),
            name: String::new(),
            category: Some("x".repeat(101)),
            description: Some("\0".into()),
            variants: vec![variant("ok"), variant("not ok"), variant("ok")],
            images: vec!["a".into(); 21],
        };
        Product::create(new, now, &mut check);
        let Err(Error::Invalid(violations)) = check.done() else {
            panic!("refused")
        };
        let pointers: Vec<_> = violations.iter().map(|v| v.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/variants/1/sku",
                "/variants/2/sku",
                "/name",
                "/category",
                "/description",
                "/images"
            ]
        );
    }
}
