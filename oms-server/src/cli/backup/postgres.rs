//! PostgreSQL has its own programs for this. What to run is printed, without the password: a command line is open to
//! everybody on the machine.

use std::path::Path;

use anyhow::{Context, Result, bail};
use oms_core::Timestamp;
use url::Url;

/// Where one is connected while databases are made and renamed: every server has it.
const MAINTENANCE: &str = "postgres";

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

/// Into a fresh database, all or nothing. Over one that is there, `pg_restore --clean` would drop what the dump knows and
/// leave what a newer program has added: neither schema. The old database is kept under another name, which PostgreSQL
/// refuses while anybody is connected to it.
pub(super) fn restore(database_url: &str, file: &Path, now: Timestamp) -> Result<String> {
    let address = without_password(database_url)?;
    let name = database_name(&address)?;
    if name == MAINTENANCE {
        bail!(
            "DATABASE_URL names the database {MAINTENANCE}, which is for administrators: name another one, and restore into that"
        );
    }
    let maintenance = quoted(&with_database(&address, MAINTENANCE)?);
    // PostgreSQL cuts names off after 63 bytes, and a letter may have four.
    let short: String = name.chars().take(10).collect();
    let begin = if name.len() <= 40 { &name } else { &short };
    let kept = format!("{begin}_replaced_{}", now.as_secs());
    let (name, kept) = (identifier(&name), identifier(&kept));
    let (rename, create) = (
        quoted(&format!("ALTER DATABASE {name} RENAME TO {kept}")),
        quoted(&format!("CREATE DATABASE {name}")),
    );
    let (address, file) = (quoted(&address), quoted(&file.display().to_string()));
    Ok(format!(
        "psql --no-psqlrc --set=ON_ERROR_STOP=1 --dbname={maintenance} --command={rename} --command={create} && \
         pg_restore --no-owner --no-privileges --single-transaction --exit-on-error --dbname={address} {file}"
    ))
}

/// As PostgreSQL's own programs find it: in the parameters, in the path, or the user's name.
fn database_name(address: &str) -> Result<String> {
    let url = Url::parse(address)?;
    if let Some((_, name)) = url.query_pairs().find(|(key, _)| key == "dbname") {
        return Ok(name.into_owned());
    }
    match url.path().trim_start_matches('/') {
        "" if url.username().is_empty() => bail!("DATABASE_URL names no database"),
        "" => percent_decode(url.username()),
        name => percent_decode(name),
    }
}

fn percent_decode(text: &str) -> Result<String> {
    // A form would read a plus sign as a space.
    let form = format!("x={}", text.replace('+', "%2B"));
    let found = url::form_urlencoded::parse(form.as_bytes()).next();
    let (_, name) = found.context("DATABASE_URL names no database")?;
    Ok(name.into_owned())
}

fn with_database(address: &str, name: &str) -> Result<String> {
    let mut url = Url::parse(address)?;
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(key, _)| key != "dbname")
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    url.set_path(name);
    url.set_query(None);
    if !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
    Ok(url.into())
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
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
        assert!(!restore(url, Path::new("x"), NOW).unwrap().contains("geheim"));
    }

    const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

    #[test]
    fn a_restore_makes_a_fresh_database_and_keeps_the_old_one() {
        let line = restore("postgres://oms@db/it's%22+1", Path::new("x"), NOW).unwrap();
        assert_eq!(
            line,
            "psql --no-psqlrc --set=ON_ERROR_STOP=1 --dbname='postgres://oms@db/postgres' \
             --command='ALTER DATABASE \"it'\\''s\"\"+1\" RENAME TO \"it'\\''s\"\"+1_replaced_1767225600\"' \
             --command='CREATE DATABASE \"it'\\''s\"\"+1\"' && \
             pg_restore --no-owner --no-privileges --single-transaction --exit-on-error \
             --dbname='postgres://oms@db/it'\\''s%22+1' 'x'"
        );
        let names = |url: &str| database_name(url).ok();
        assert_eq!(names("postgres://oms@db").as_deref(), Some("oms"));
        assert_eq!(
            names("postgres://oms@db/a?dbname=b&sslmode=require").as_deref(),
            Some("b")
        );
        let line = restore(
            "postgres://oms@db/a?dbname=b&sslmode=require",
            Path::new("x"),
            NOW,
        )
        .unwrap();
        assert!(
            line.contains("'postgres://oms@db/postgres?sslmode=require'"),
            "{line}"
        );
        assert_eq!(names("postgres://db"), None);
        assert!(restore("postgres://oms@db/postgres", Path::new("x"), NOW).is_err());
        let long = "ä".repeat(31);
        let line = restore(&format!("postgres://oms@db/{long}"), Path::new("x"), NOW).unwrap();
        assert!(
            line.contains(&format!("\"{}_replaced_1767225600\"", "ä".repeat(10))),
            "{line}"
        );
    }
}
