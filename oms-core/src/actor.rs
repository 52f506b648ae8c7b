//! Who asks. Every service method takes an actor first and checks its rights itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::UserId;

/// Who asks for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// Nobody that is known.
    Anonymous,
    /// A signed-in user.
    User {
        /// Who.
        id: UserId,
        /// What it may do beyond a customer.
        roles: Roles,
        /// Whether its e-mail address is verified.
        verified: bool,
    },
    /// A payment gateway, by the name of its account: what a verified webhook does.
    Gateway(String),
    /// The program itself: jobs, the command line, an embedding program that checks rights by other means.
    System,
}

/// What a user may do beyond a customer. An admin may do all that an operator may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// Fulfils, captures, refunds, sees jobs and the webhook inbox.
    #[serde(default)]
    pub operator: bool,
    /// Also sets roles and plugins.
    #[serde(default)]
    pub admin: bool,
}

impl Roles {
    /// An ordinary customer.
    pub const NONE: Self = Self {
        operator: false,
        admin: false,
    };
    /// An administrator.
    pub const ADMIN: Self = Self {
        operator: true,
        admin: true,
    };
}

impl Actor {
    /// The user, when it is one.
    pub fn user_id(&self) -> Option<UserId> {
        match self {
            Self::User { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// A signed-in user, verified or not.
    pub fn require_user(&self) -> Result<UserId> {
        self.user_id().ok_or(Error::Unauthorized)
    }

    /// A signed-in user whose e-mail address is verified.
    pub fn require_verified(&self) -> Result<UserId> {
        match self {
            Self::User {
                id, verified: true, ..
            } => Ok(*id),
            Self::User { .. } => Err(Error::EmailNotVerified),
            _ => Err(Error::Unauthorized),
        }
    }

    /// Whether it acts for the whole shop: operators, admins and the program itself.
    pub fn is_operator(&self) -> bool {
        match self {
            Self::User { roles, .. } => roles.operator || roles.admin,
            Self::System => true,
            Self::Anonymous | Self::Gateway(_) => false,
        }
    }

    /// An operator, an admin or the program itself.
    pub fn require_operator(&self) -> Result<()> {
        self.require(self.is_operator(), "operators only")
    }

    /// An admin or the program itself.
    pub fn require_admin(&self) -> Result<()> {
        let admin = matches!(
            self,
            Self::System
                | Self::User {
                    roles: Roles { admin: true, .. },
                    ..
                }
        );
        self.require(admin, "administrators only")
    }

    /// The user itself, an operator, an admin or the program itself. `what` is what is said not to exist otherwise.
    pub fn require_owner_or_operator(&self, owner: Option<UserId>, what: &'static str) -> Result<()> {
        if self.is_operator() || (owner.is_some() && self.user_id() == owner) {
            return Ok(());
        }
        match self {
            Self::Anonymous => Err(Error::Unauthorized),
            _ => Err(Error::NotFound(what)),
        }
    }

    fn require(&self, allowed: bool, why: &'static str) -> Result<()> {
        match (allowed, self) {
            (true, _) => Ok(()),
            (false, Self::Anonymous) => Err(Error::Unauthorized),
            (false, _) => Err(Error::Forbidden(why)),
        }
    }
}

/// As timelines and movements name it: `usr_..`, `gateway:mock`, `system`.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::User { id, .. } => write!(f, "{id}"),
            Self::Gateway(account) => write!(f, "gateway:{account}"),
            Self::System => f.write_str("system"),
        }
    }
}
