//! Businesses, products, variants and media.

use futures_util::future::join_all;
use oms_core::catalog::{
    Business, BusinessChanges, BusinessFilter, Media, NewBusiness, NewProduct, NewVariant, PriceRange,
    Product, ProductChanges, ProductFilter, ProductSort, VariantChanges,
};
use oms_core::{Actor, BusinessId, Error, Money, PageRequest, ProductId, Result};

use crate::support::{TestOms, each_db};

fn money(minor: i64, currency: &str) -> Money {
    Money::new(minor, currency.parse().unwrap()).unwrap()
}

fn variant(sku: &str, price: Money) -> NewVariant {
    NewVariant {
        sku: sku.into(),
        name: None,
        price,
    }
}

fn product(business: BusinessId, name: &str, sku: &str, minor: i64) -> NewProduct {
    NewProduct {
        business,
        name: name.into(),
        category: None,
        description: None,
        variants: vec![variant(sku, money(minor, "EUR"))],
        images: Vec::new(),
    }
}

async fn business(t: &TestOms, seller: &Actor, name: &str) -> Business {
    let new = NewBusiness {
        name: name.into(),
        ..NewBusiness::default()
    };
    t.oms.catalog().create_business(seller, new).await.unwrap()
}

/// A seller with a business.
async fn seller(t: &TestOms) -> (Actor, BusinessId) {
    let seller = t.user("seller").await;
    let business = business(t, &seller, "Pottery").await;
    (seller, business.id)
}

fn pointers<T: std::fmt::Debug>(result: Result<T>) -> Vec<String> {
    match result {
        Err(Error::Invalid(violations)) => violations.into_iter().map(|v| v.pointer).collect(),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn businesses_belong_to_their_owners() {
    each_db(async |t| {
        let catalog = t.oms.catalog();
        let (anna, bert) = (t.user("anna").await, t.user("bert").await);
        let mine = business(&t, &anna, "Anna's").await;
        assert_eq!(mine.owner, anna.user_id().unwrap());
        assert_eq!(catalog.business(&Actor::Anonymous, mine.id).await.unwrap(), mine);

        let changes = || BusinessChanges {
            city: Some(Some("Oslo".into())),
            ..BusinessChanges::default()
        };
        let refused = catalog.update_business(&bert, mine.id, 1, changes()).await;
        assert!(matches!(refused, Err(Error::NotFound("business"))), "{refused:?}");
        let refused = catalog
            .update_business(&Actor::Anonymous, mine.id, 1, changes())
            .await;
        assert!(matches!(refused, Err(Error::Unauthorized)), "{refused:?}");
        let changed = catalog
            .update_business(&anna, mine.id, 1, changes())
            .await
            .unwrap();
        assert_eq!((changed.version, changed.city.as_deref()), (2, Some("Oslo")));
        let clear = BusinessChanges {
            city: Some(None),
            ..BusinessChanges::default()
        };
        let changed = catalog
            .update_business(&t.operator(), mine.id, 2, clear)
            .await
            .unwrap();
        assert_eq!(
            (changed.version, changed.city.as_deref(), changed.name.as_str()),
            (3, None, "Anna's")
        );
        assert_eq!(catalog.business(&bert, mine.id).await.unwrap(), changed);

        for i in 0..3 {
            business(&t, &bert, &format!("Bert's {i}")).await;
        }
        let page = |cursor| PageRequest {
            cursor,
            limit: Some(3),
        };
        let first = catalog
            .businesses(&anna, BusinessFilter::All, page(None))
            .await
            .unwrap();
        let second = catalog
            .businesses(&anna, BusinessFilter::All, page(first.next_cursor))
            .await
            .unwrap();
        assert_eq!(
            (first.data.len(), second.data.len(), second.next_cursor),
            (3, 1, None)
        );
        let own = catalog
            .businesses(&anna, BusinessFilter::Mine, page(None))
            .await
            .unwrap();
        assert_eq!(own.data, [changed]);
    })
    .await;
}

#[tokio::test]
async fn who_may_sell() {
    each_db(async |t| {
        let catalog = t.oms.catalog();
        let (anna, id) = seller(&t).await;
        let unverified = Actor::User {
            id: anna.user_id().unwrap(),
            roles: Default::default(),
            verified: false,
        };
        let new = || NewBusiness {
            name: "New".into(),
            ..NewBusiness::default()
        };
        let refused = catalog.create_business(&unverified, new()).await;
        assert!(matches!(refused, Err(Error::EmailNotVerified)), "{refused:?}");
        let refused = catalog.create_business(&Actor::Anonymous, new()).await;
        assert!(matches!(refused, Err(Error::Unauthorized)), "{refused:?}");
        let refused = catalog
            .create_product(&unverified, product(id, "Mug", "M", 1))
            .await;
        assert!(matches!(refused, Err(Error::EmailNotVerified)), "{refused:?}");
        let other = t.user("other").await;
        let refused = catalog.create_product(&other, product(id, "Mug", "M", 1)).await;
        assert!(matches!(refused, Err(Error::NotFound("business"))), "{refused:?}");

        let mug = catalog
            .create_product(&t.operator(), product(id, "Mug", "M", 1))
            .await
            .unwrap();
        let refused = catalog.delete_product(&other, mug.id, 1).await;
        assert!(matches!(refused, Err(Error::NotFound("product"))), "{refused:?}");
        let refused = catalog
            .add_variant(&other, mug.id, 1, variant("N", money(1, "EUR")))
            .await;
        assert!(matches!(refused, Err(Error::NotFound("product"))), "{refused:?}");
        assert_eq!(catalog.product(&Actor::Anonymous, mug.id).await.unwrap(), mug);
    })
    .await;
}

#[tokio::test]
async fn the_life_of_a_product() {
    each_db(async |t| {
        let catalog = t.oms.catalog();
        let (anna, id) = seller(&t).await;
        let mut new = product(id, "Mug", "MUG-S", 900);
        new.variants.push(variant("MUG-L", money(1200, "NOK")));
        new.category = Some("Kitchen".into());
        let mug = catalog.create_product(&anna, new).await.unwrap();
        assert_eq!(catalog.product(&anna, mug.id).await.unwrap(), mug);
        let stock = t.oms.inventory().level(&anna, "MUG-L").await.unwrap();
        assert_eq!((stock.on_hand, stock.allocated, stock.version), (0, 0, 1));

        t.clock.advance(std::time::Duration::from_secs(60));
        let changes = ProductChanges {
            description: Some(Some("For tea".into())),
            category: Some(None),
            ..ProductChanges::default()
        };
        let v2 = catalog.update_product(&anna, mug.id, 1, changes).await.unwrap();
        assert_eq!(
            (v2.version, v2.category.as_deref(), v2.updated_at),
            (2, None, t.oms.now())
        );
        assert_eq!(v2.variants, mug.variants);

        let v3 = catalog
            .add_variant(&anna, mug.id, 2, variant("MUG-XL", money(1500, "EUR")))
            .await
            .unwrap();
        let large = v3.variants[1].id;
        let changes = VariantChanges {
            price: Some(money(1000, "EUR")),
            name: Some(Some("large".into())),
        };
        let v4 = catalog
            .update_variant(&anna, mug.id, large, 3, changes)
            .await
            .unwrap();
        assert_eq!((v4.version, v4.variants[1].version), (4, 2));
        assert_eq!(v4.variants[1].price, money(1000, "EUR"));
        assert_eq!(catalog.product(&anna, mug.id).await.unwrap(), v4);

        let v5 = catalog.remove_variant(&anna, mug.id, large, 4).await.unwrap();
        let skus = |p: &Product| p.variants.iter().map(|v| v.sku.to_string()).collect::<Vec<_>>();
        assert_eq!(
            (v5.version, skus(&v5)),
            (5, vec!["MUG-S".into(), "MUG-XL".into()])
        );
        let again = catalog.remove_variant(&anna, mug.id, large, 5).await;
        assert!(matches!(again, Err(Error::NotFound("variant"))), "{again:?}");
        let v6 = catalog
            .remove_variant(&anna, mug.id, v5.variants[0].id, 5)
            .await
            .unwrap();
        assert_eq!(catalog.product(&anna, mug.id).await.unwrap(), v6);
        let last = catalog.remove_variant(&anna, mug.id, v6.variants[0].id, 6).await;
        assert!(
            matches!(last, Err(Error::InvalidState { what: "variant", .. })),
            "{last:?}"
        );

        // The SKU of what was removed may be used again, with stock of its own.
        let v7 = catalog
            .add_variant(&anna, mug.id, 6, variant("MUG-L", money(1, "EUR")))
            .await
            .unwrap();
        assert_eq!(skus(&v7), ["MUG-XL", "MUG-L"]);

        catalog.delete_product(&anna, mug.id, 7).await.unwrap();
        let gone = catalog.product(&anna, mug.id).await;
        assert!(matches!(gone, Err(Error::NotFound("product"))), "{gone:?}");
        let gone = catalog
            .update_product(&anna, mug.id, 8, ProductChanges::default())
            .await;
        assert!(matches!(gone, Err(Error::NotFound("product"))), "{gone:?}");
        let gone = t.oms.inventory().level(&anna, "MUG-L").await;
        assert!(matches!(gone, Err(Error::NotFound("SKU"))), "{gone:?}");
        catalog
            .create_product(&anna, product(id, "Mug again", "MUG-L", 5))
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn all_that_is_wrong_is_named_and_nothing_written() {
    each_db(async |t| {
        let catalog = t.oms.catalog();
        let (anna, id) = seller(&t).await;
        let mut new = product(id, " ", "no sku", 1);
        new.variants.push(variant("OK", money(1, "EUR")));
        new.variants.push(variant("OK", money(1, "EUR")));
        new.images = vec!["unknown.png".into(), "not/a name\0".into()];
        let refused = pointers(catalog.create_product(&anna, new).await);
        let expected = [
            "/variants/0/sku",
            "/variants/2/sku",
            "/name",
            "/images/0",
            "/images/1",
        ];
        assert_eq!(refused, expected);

        for count in [0, 101] {
            let mut new = product(id, "Mug", "x", 1);
            new.variants = (0..count)
                .map(|i| variant(&format!("S{i}"), money(1, "EUR")))
                .collect();
            assert_eq!(pointers(catalog.create_product(&anna, new).await), ["/variants"]);
        }
        let empty = NewBusiness {
            name: String::new(),
            phone: Some("1".repeat(101)),
            ..NewBusiness::default()
        };
        assert_eq!(
            pointers(catalog.create_business(&anna, empty).await),
            ["/name", "/phone"]
        );
        let all = catalog
            .products(&anna, ProductFilter::default(), PageRequest::default())
            .await
            .unwrap();
        assert!(all.data.is_empty());
        let sku = t.oms.inventory().level(&anna, "OK").await;
        assert!(matches!(sku, Err(Error::NotFound("SKU"))), "{sku:?}");

        // A hundred is the most, and one more is refused.
        let mut new = product(id, "Many", "x", 1);
        new.variants = (0..100)
            .map(|i| variant(&format!("S{i}"), money(1, "EUR")))
            .collect();
        let many = catalog.create_product(&anna, new).await.unwrap();
        assert_eq!(catalog.product(&anna, many.id).await.unwrap(), many);
        assert_eq!(
            pointers(
                catalog
                    .add_variant(&anna, many.id, 1, variant("T", money(1, "EUR")))
                    .await
            ),
            [""]
        );
    })
    .await;
}

#[tokio::test]
async fn one_sku_is_sold_once() {
    each_db(async |t| {
        let catalog = t.oms.catalog();
        let (anna, id) = seller(&t).await;
        // Pairs in both orders: whoever loses must be told so, not run into the other.
        let tries = (0..12).map(|i| {
            let mut new = product(id, "Mug", if i % 2 == 0 { "A" } else { "B" }, 1);
            new.variants
                .push(variant(if i % 2 == 0 { "B" } else { "A" }, money(1, "EUR")));
            let anna = &anna;
            async move { catalog.create_product(anna, new).await }
        });
        let (made, refused): (Vec<_>, Vec<_>) = join_all(tries).await.into_iter().partition(Result::is_ok);
        assert_eq!(made.len(), 1);
        assert!(
            refused.iter().all(|r| matches!(r, Err(Error::Duplicate("SKU")))),
            "{refused:?}"
        );
        // Case matters.
        let mug = catalog
            .create_product(&anna, product(id, "Mug", "a", 1))
            .await
            .unwrap();
        let taken = catalog
            .add_variant(&anna, mug.id, 1, variant("B", money(1, "EUR")))
            .await;
        assert!(matches!(taken, Err(Error::Duplicate("SKU"))), "{taken:?}");
        assert_eq!(catalog.product(&anna, mug.id).await.unwrap(), mug);
    })
    .await;
}

#[tokio::test]
async fn of_changes_to_one_version_one_wins() {
    each_db(async |t| {
        let catalog = t.oms.catalog();
        let (anna, id) = seller(&t).await;
        let mug = catalog
            .create_product(&anna, product(id, "Mug", "A", 1))
            .await
            .unwrap();
        let changes = (0..8).map(|i| {
            let (anna, mug) = (&anna, &mug);
            async move {
                match i % 3 {
                    0 => {
                        let name = Some(format!("Mug {i}"));
                        let changes = ProductChanges {
                            name,
                            ..ProductChanges::default()
                        };
                        catalog.update_product(anna, mug.id, 1, changes).await
                    }
                    1 => {
                        catalog
                            .add_variant(anna, mug.id, 1, variant(&format!("V{i}"), money(1, "EUR")))
                            .await
                    }
                    _ => {
                        let price = Some(money(i, "EUR"));
                        let changes = VariantChanges {
                            price,
                            ..VariantChanges::default()
                        };
                        catalog
                            .update_variant(anna, mug.id, mug.variants[0].id, 1, changes)
                            .await
                    }
                }
            }
        });
        let (done, refused): (Vec<_>, Vec<_>) = join_all(changes).await.into_iter().partition(Result::is_ok);
        assert_eq!(done.len(), 1);
        let stale = |r: &Result<Product>| {
            matches!(
                r,
                Err(Error::VersionConflict {
                    expected: 1,
                    actual: 2
                })
            )
        };
        assert!(refused.iter().all(stale), "{refused:?}");
        assert_eq!(
            &catalog.product(&anna, mug.id).await.unwrap(),
            done[0].as_ref().unwrap()
        );

        let city = |city: &str| BusinessChanges {
            city: Some(Some(city.into())),
            ..BusinessChanges::default()
        };
        let both = join_all(["Oslo", "Rome"].map(|c| catalog.update_business(&anna, id, 1, city(c)))).await;
        assert_eq!(both.iter().filter(|r| r.is_ok()).count(), 1, "{both:?}");
        let stale = both.into_iter().find_map(Result::err);
        assert!(
            matches!(
                stale,
                Some(Error::VersionConflict {
                    expected: 1,
                    actual: 2
                })
            ),
            "{stale:?}"
        );
    })
    .await;
}

/// All pages of a list, two at a time.
async fn walk(t: &TestOms, filter: ProductFilter) -> Vec<String> {
    let (mut names, mut cursor) = (Vec::new(), None);
    loop {
        let page = PageRequest {
            cursor,
            limit: Some(2),
        };
        let page = t
            .oms
            .catalog()
            .products(&Actor::Anonymous, filter.clone(), page)
            .await
            .unwrap();
        names.extend(page.data.into_iter().map(|p| p.name));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return names;
        }
    }
}

/// Minor units and currency of each variant.
type Prices = &'static [(i64, &'static str)];

/// Five products: name, category, and variants with price and currency; each a second after the one before.
async fn shelf(t: &TestOms) -> (Actor, BusinessId) {
    let (anna, id) = seller(t).await;
    let products: [(&str, &str, Prices); 5] = [
        ("Öl Lamp", "Light", &[(900, "EUR"), (100, "NOK")]),
        ("mug", "Kitchen", &[(500, "EUR")]),
        ("Mug", "Kitchen", &[(700, "EUR"), (300, "EUR")]),
        ("100% wool_sock", "Wear", &[(500, "EUR")]),
        ("Bowl", "KITCHEN", &[(500, "NOK")]),
    ];
    for (i, (name, category, variants)) in products.into_iter().enumerate() {
        t.clock.advance(std::time::Duration::from_secs(1));
        let mut new = product(id, name, "x", 1);
        new.category = Some(category.into());
        new.description = Some(format!("Made by hand, no {i}"));
        new.variants = (0..)
            .zip(variants)
            .map(|(n, (minor, currency))| variant(&format!("SKU-{i}-{n}"), money(*minor, currency)))
            .collect();
        t.oms.catalog().create_product(&anna, new).await.unwrap();
    }
    (anna, id)
}

#[tokio::test]
async fn lists_in_every_order() {
    each_db(async |t| {
        shelf(&t).await;
        let sorted = async |sort| {
            walk(
                &t,
                ProductFilter {
                    sort,
                    ..ProductFilter::default()
                },
            )
            .await
        };
        let newest = ["Bowl", "100% wool_sock", "Mug", "mug", "Öl Lamp"];
        assert_eq!(sorted(ProductSort::Newest).await, newest);
        // Equal names (without case) and equal prices are told apart by age, and none is lost between pages.
        assert_eq!(
            sorted(ProductSort::Name).await,
            ["100% wool_sock", "Bowl", "mug", "Mug", "Öl Lamp"]
        );
        assert_eq!(
            sorted(ProductSort::NameDescending).await,
            ["Öl Lamp", "Mug", "mug", "Bowl", "100% wool_sock"]
        );
        assert_eq!(
            sorted(ProductSort::Price).await,
            ["Öl Lamp", "Mug", "mug", "100% wool_sock", "Bowl"]
        );
        assert_eq!(
            sorted(ProductSort::PriceDescending).await,
            ["Bowl", "100% wool_sock", "mug", "Mug", "Öl Lamp"]
        );
    })
    .await;
}

#[tokio::test]
async fn lists_by_filter() {
    each_db(async |t| {
        let (anna, id) = shelf(&t).await;
        let other = business(&t, &anna, "Other").await.id;
        t.oms
            .catalog()
            .create_product(&anna, product(other, "Other", "OTHER", 42))
            .await
            .unwrap();
        let found = async |filter: ProductFilter| {
            let sort = ProductSort::Name;
            walk(&t, ProductFilter { sort, ..filter }).await
        };
        let all = ProductFilter::default;
        let text = |text: &str| ProductFilter {
            text: Some(text.into()),
            ..all()
        };
        let name = |name: &str| ProductFilter {
            name: Some(name.into()),
            ..all()
        };
        assert_eq!(found(name("MUG")).await, ["mug", "Mug"]);
        assert_eq!(found(name("öL")).await, ["Öl Lamp"]);
        // The signs of LIKE are letters like others.
        assert_eq!(found(name("%")).await, ["100% wool_sock"]);
        assert_eq!(found(name("l_s")).await, ["100% wool_sock"]);
        assert_eq!(found(name("\\")).await, [""; 0]);
        assert_eq!(found(text("hand, NO 3")).await, ["100% wool_sock"]);
        assert_eq!(found(text("sku-0-1")).await, ["Öl Lamp"]);
        let category = Some("kitchen".into());
        assert_eq!(
            found(ProductFilter { category, ..all() }).await,
            ["Bowl", "mug", "Mug"]
        );
        assert_eq!(
            found(ProductFilter {
                business: Some(other),
                ..all()
            })
            .await,
            ["Other"]
        );
        let range = |currency: &str, min, max| {
            let currency = currency.parse().unwrap();
            ProductFilter {
                business: Some(id),
                price: Some(PriceRange { currency, min, max }),
                ..all()
            }
        };
        assert_eq!(
            found(range("EUR", Some(300), Some(500))).await,
            ["100% wool_sock", "mug", "Mug"]
        );
        assert_eq!(found(range("EUR", Some(301), Some(499))).await, [""; 0]);
        assert_eq!(found(range("NOK", None, None)).await, ["Bowl", "Öl Lamp"]);
        // The price to sort by is that of the variants that match.
        let dear = ProductFilter {
            sort: ProductSort::Price,
            ..range("EUR", Some(400), None)
        };
        assert_eq!(walk(&t, dear).await, ["mug", "100% wool_sock", "Mug", "Öl Lamp"]);
        let wrong = range("EUR", Some(-1), Some(i64::MAX));
        let refused = t
            .oms
            .catalog()
            .products(&anna, wrong, PageRequest::default())
            .await;
        assert_eq!(pointers(refused), ["/min_price", "/max_price"]);
    })
    .await;
}

#[tokio::test]
async fn pages_stand_still_while_products_come_and_go() {
    each_db(async |t| {
        let (anna, id) = shelf(&t).await;
        let catalog = t.oms.catalog();
        let by_name = ProductFilter {
            sort: ProductSort::Name,
            ..ProductFilter::default()
        };
        let page = |cursor| PageRequest {
            cursor,
            limit: Some(3),
        };
        let first = catalog
            .products(&anna, by_name.clone(), page(None))
            .await
            .unwrap();
        let last = first.data.last().unwrap();
        assert_eq!(last.name, "mug");
        // The product that the cursor stands on goes, one comes in before it and one after.
        catalog.delete_product(&anna, last.id, 1).await.unwrap();
        catalog
            .create_product(&anna, product(id, "Apple", "APPLE", 1))
            .await
            .unwrap();
        catalog
            .create_product(&anna, product(id, "Pear", "PEAR", 1))
            .await
            .unwrap();
        let cursor = first.next_cursor;
        let second = catalog
            .products(&anna, by_name.clone(), page(cursor.clone()))
            .await
            .unwrap();
        let names: Vec<_> = second.data.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["Mug", "Pear", "Öl Lamp"]);

        let refused = catalog
            .products(&anna, ProductFilter::default(), page(cursor))
            .await;
        assert_eq!(pointers(refused), ["/cursor"]);
    })
    .await;
}

#[tokio::test]
async fn media_are_noted_once_and_shown() {
    each_db(async |t| {
        let catalog = t.oms.catalog();
        let (anna, id) = seller(&t).await;
        let picture = Media {
            name: "3f2a.png".into(),
            content_type: "image/png".into(),
            bytes: 1234,
        };
        let refused = catalog.register_media(&Actor::Anonymous, picture.clone()).await;
        assert!(matches!(refused, Err(Error::Unauthorized)), "{refused:?}");
        assert_eq!(
            catalog.register_media(&anna, picture.clone()).await.unwrap(),
            picture
        );
        let bert = t.user("bert").await;
        assert_eq!(
            catalog.register_media(&bert, picture.clone()).await.unwrap(),
            picture
        );
        assert_eq!(
            catalog.media(&Actor::Anonymous, "3f2a.png").await.unwrap(),
            Some(picture)
        );
        for name in ["3F2A.png", "", "../x", "a\0"] {
            assert_eq!(catalog.media(&anna, name).await.unwrap(), None, "{name:?}");
        }
        let bad = Media {
            name: "a/b".into(),
            content_type: String::new(),
            bytes: 0,
        };
        assert_eq!(
            pointers(catalog.register_media(&anna, bad).await),
            ["/name", "/content_type", "/bytes"]
        );

        let mut new = product(id, "Mug", "M", 1);
        new.images = vec!["3f2a.png".into()];
        let mug = catalog.create_product(&anna, new).await.unwrap();
        assert_eq!(catalog.product(&anna, mug.id).await.unwrap().images, ["3f2a.png"]);
        let images = |names: &[&str]| ProductChanges {
            images: Some(names.iter().copied().map(String::from).collect()),
            ..ProductChanges::default()
        };
        let refused = catalog
            .update_product(&anna, mug.id, 1, images(&["3f2a.png", "gone.png"]))
            .await;
        assert_eq!(pointers(refused), ["/images/1"]);
        let bare = catalog
            .update_product(&anna, mug.id, 1, images(&[]))
            .await
            .unwrap();
        assert_eq!((bare.version, bare.images.len()), (2, 0));
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there() {
    each_db(async |t| {
        let catalog = t.oms.catalog();
        let (anna, now) = (t.user("anna").await, t.oms.now());
        let product = catalog.product(&anna, ProductId::new(now)).await;
        assert!(matches!(product, Err(Error::NotFound("product"))), "{product:?}");
        let business = catalog.business(&anna, BusinessId::new(now)).await;
        assert!(
            matches!(business, Err(Error::NotFound("business"))),
            "{business:?}"
        );
        let refused = catalog
            .create_product(&anna, self::product(BusinessId::new(now), "x", "x", 1))
            .await;
        assert!(matches!(refused, Err(Error::NotFound("business"))), "{refused:?}");
    })
    .await;
}
