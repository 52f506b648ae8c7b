//! Users, their roles and whether they may log in.

use anyhow::{Result, bail};
use oms_core::users::User;
use oms_core::{Actor, Oms, Roles, UserId};

use super::listing::{self, one};
use crate::http::UserBody;

#[derive(clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// List users, the newest first
    #[command(after_help = "Example:\n  oms-server admin users list --limit 20")]
    List(#[command(flatten)] listing::Options),
    /// Show one
    #[command(after_help = "Example:\n  oms-server admin users show ann@example.com --json")]
    Show(#[command(flatten)] Which),
    /// Give a user exactly these roles
    #[command(
        after_help = "Examples:\n  oms-server admin users roles ann operator\n  oms-server admin users roles ann none\n\n\
                      It holds for the user's next request."
    )]
    Roles {
        #[command(flatten)]
        which: Which,
        /// One or both of operator and admin, or none
        #[arg(required = true, value_enum)]
        roles: Vec<Role>,
    },
    /// Lock a user out
    #[command(
        after_help = "Example:\n  oms-server admin users lock ann\n\nIts sessions end with its next request; its orders stay as they are."
    )]
    Lock(#[command(flatten)] Which),
    /// Let a user in again
    #[command(after_help = "Example:\n  oms-server admin users unlock ann")]
    Unlock(#[command(flatten)] Which),
}

#[derive(clap::Args)]
pub(in crate::cli) struct Which {
    /// Id, name or e-mail address
    user: String,
    /// Print JSON, as the API answers
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Role {
    None,
    Operator,
    Admin,
}

pub(super) async fn run(oms: &Oms, command: Command) -> Result<String> {
    let users = oms.users();
    let (user, json) = match command {
        Command::List(options) => {
            let page = users.list(&Actor::System, options.page()).await?;
            return Ok(options.text::<UserBody, _, 6>(
                page,
                ["id", "name", "address", "roles", "state", "since"],
                row,
            ));
        }
        Command::Show(which) => (which.find(oms).await?, which.json),
        Command::Roles { which, roles } => {
            let (roles, id) = (exactly(&roles)?, which.find(oms).await?.id);
            (users.set_roles(&Actor::System, id, roles).await?, which.json)
        }
        Command::Lock(which) => {
            let id = which.find(oms).await?.id;
            (users.set_disabled(&Actor::System, id, true).await?, which.json)
        }
        Command::Unlock(which) => {
            let id = which.find(oms).await?.id;
            (users.set_disabled(&Actor::System, id, false).await?, which.json)
        }
    };
    Ok(one(&UserBody::from(user), json))
}

impl Which {
    async fn find(&self, oms: &Oms) -> Result<User> {
        let found = match self.user.parse::<UserId>() {
            Ok(id) => oms.users().get(&Actor::System, id).await,
            Err(_) => oms.users().find(&Actor::System, &self.user).await,
        };
        Ok(found?)
    }
}

fn exactly(roles: &[Role]) -> Result<Roles> {
    if roles.contains(&Role::None) && roles.iter().any(|role| *role != Role::None) {
        bail!("none stands alone");
    }
    Ok(Roles {
        operator: roles.contains(&Role::Operator),
        admin: roles.contains(&Role::Admin),
    })
}

fn row(user: &User) -> [String; 6] {
    let roles = match (user.roles.operator, user.roles.admin) {
        (_, true) => "admin",
        (true, false) => "operator",
        (false, false) => "-",
    };
    let state = match (user.is_disabled(), user.is_verified()) {
        (true, _) => "locked",
        (false, false) => "unverified",
        (false, true) => "ok",
    };
    [
        user.id.to_string(),
        user.username.clone(),
        user.email.clone(),
        roles.into(),
        state.into(),
        user.created_at.to_string(),
    ]
}
