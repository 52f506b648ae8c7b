//! PostgreSQL has its own programs for this. What to run is printed, without the password: a command line is open to
//! everybody on the machine.

use std::path::Path;

use anyhow::{Context, Result};
use url::Url;

/// What PostgreSQL's own programs understand of an address; the rest is for our driver.
const UNDERSTOOD: [&str; 9] = [
    "host",
    "port",
    "dbname",
    "user",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "options",
];

pub(super) fn dump(database_url: &str, file: &Path) -> Result<String> {
    let (address, file) = (
        quoted(&without_password(database_url)?),
        quoted(&file.display().to_string()),
    );
    Ok(format!(
        "pg_dump --format=custom --no-owner --no-privileges --file={file} --dbname={address}"
    ))
}

pub(super) fn restore(database_url: &str, file: &Path) -> Result<String> {
    let (address, file) = (
        quoted(&without_password(database_url)?),
        quoted(&file.display().to_string()),
    );
    // All or nothing, and over what is there.
    Ok(format!(
        "pg_restore --clean --if-exists --no-owner --no-privileges --single-transaction --exit-on-error --dbname={address} {file}"
    ))
}

fn without_password(database_url: &str) -> Result<String> {
    // The error is not shown: it might quote the address.
    let mut url = Url::parse(database_url)
        .ok()
        .context("DATABASE_URL: this is no address")?;
    let _ = url.set_password(None);
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(key, _)| UNDERSTOOD.contains(&key.as_ref()))
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    url.set_query(None);
    if !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
    Ok(url.into())
}

/// For a shell, which takes nothing between single quotes for more than a letter.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_not_printed_and_nothing_breaks_out() {
        let url =
            "postgres://oms:geheim@db:5433/shop?sslmode=require&statement-cache-capacity=5&password=geheim";
        let line = dump(url, Path::new("it's.dump")).unwrap();
        assert_eq!(
            line,
            r"pg_dump --format=custom --no-owner --no-privileges --file='it'\''s.dump' --dbname='postgres://oms@db:5433/shop?sslmode=require'"
        );
        assert!(!restore(url, Path::new("x")).unwrap().contains("geheim"));
    }
}
