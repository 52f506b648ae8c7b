//! Businesses, which sell.

use oms_core::Actor;
use oms_core::catalog::{Business, BusinessChanges, BusinessFilter, NewBusiness};
use poem::web::Data;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;

use super::auth::Auth;
use super::error::{Result, required_version};
use super::json::JsonBody;
use super::reply::{Created, List, Reply};
use super::values::{change, page};
use super::{State, Tag};

pub(super) struct BusinessesApi;

#[derive(Debug, Object)]
#[oai(deny_unknown_fields, rename = "NewBusiness")]
struct NewBusinessBody {
    name: String,
    city: Option<String>,
    country: Option<String>,
    description: Option<String>,
    phone: Option<String>,
}

/// What is left out stays; null clears.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields, rename = "BusinessChanges")]
struct BusinessChangesBody {
    name: Option<String>,
    city: MaybeUndefined<String>,
    country: MaybeUndefined<String>,
    description: MaybeUndefined<String>,
    phone: MaybeUndefined<String>,
}

/// Somebody who sells.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Business")]
struct BusinessBody {
    id: String,
    /// The user that it belongs to.
    owner_id: String,
    name: String,
    city: Option<String>,
    country: Option<String>,
    description: Option<String>,
    phone: Option<String>,
    version: i64,
    created_at: String,
    updated_at: String,
}

#[OpenApi(prefix_path = "/v1", tag = "Tag::Catalog")]
impl BusinessesApi {
    /// Open a business
    ///
    /// Any user with a verified address may; it then sells.
    #[oai(path = "/businesses", method = "post", operation_id = "createBusiness")]
    async fn create_business(
        &self,
        auth: Auth,
        body: JsonBody<NewBusinessBody>,
    ) -> Result<Created<BusinessBody>> {
        let (Auth(me), JsonBody(new)) = (auth, body);
        let new = NewBusiness {
            name: new.name,
            city: new.city,
            country: new.country,
            description: new.description,
            phone: new.phone,
        };
        Ok(business_reply(
            me.oms.catalog().create_business(&me.actor, new).await?,
        ))
    }

    /// Businesses, the newest first
    #[oai(path = "/businesses", method = "get", operation_id = "listBusinesses")]
    async fn businesses(
        &self,
        state: Data<&State>,
        /// The `next_cursor` of the page before.
        cursor: Query<Option<String>>,
        /// At most so many, 1 to 200; 50 when not given.
        limit: Query<Option<u32>>,
    ) -> Result<Reply<List<BusinessBody>>> {
        let catalog = state.oms.catalog();
        let page = page(cursor.0, limit.0);
        let found = catalog
            .businesses(&Actor::Anonymous, BusinessFilter::All, page)
            .await?;
        Ok(Reply::new(found.into()))
    }

    /// A business
    #[oai(path = "/businesses/:id", method = "get", operation_id = "getBusiness")]
    async fn business(&self, state: Data<&State>, id: Path<String>) -> Result<Reply<BusinessBody>> {
        let id = super::values::id(&id, "business")?;
        Ok(business_reply(
            state.oms.catalog().business(&Actor::Anonymous, id).await?,
        ))
    }

    /// Change a business
    #[oai(path = "/businesses/:id", method = "patch", operation_id = "updateBusiness")]
    async fn update_business(
        &self,
        auth: Auth,
        id: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: JsonBody<BusinessChangesBody>,
    ) -> Result<Reply<BusinessBody>> {
        let (Auth(me), JsonBody(new)) = (auth, body);
        let id = super::values::id(&id, "business")?;
        let version = required_version(if_match.0.as_deref())?;
        let changes = BusinessChanges {
            name: new.name,
            city: change(new.city),
            country: change(new.country),
            description: change(new.description),
            phone: change(new.phone),
        };
        let catalog = me.oms.catalog();
        Ok(business_reply(
            catalog.update_business(&me.actor, id, version, changes).await?,
        ))
    }
}

fn business_reply<const STATUS: u16>(business: Business) -> Reply<BusinessBody, STATUS> {
    let version = business.version;
    Reply::new(business.into()).version(version)
}

impl From<Business> for BusinessBody {
    fn from(business: Business) -> Self {
        Self {
            id: business.id.to_string(),
            owner_id: business.owner.to_string(),
            name: business.name,
            city: business.city,
            country: business.country,
            description: business.description,
            phone: business.phone,
            version: business.version,
            created_at: business.created_at.to_string(),
            updated_at: business.updated_at.to_string(),
        }
    }
}
