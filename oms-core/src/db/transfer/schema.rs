//! Which tables there are, and in which order they can be filled.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgConnection, SqliteConnection};

use super::kind::Kind;
use super::{Tx, sides};
use crate::error::{Error, Result};

/// SQLite's counters. PostgreSQL has a sequence in the place of each row.
const COUNTERS: &str = "oms_counter";

/// A table that both databases have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(super) columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// All that is to be copied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// None refers to one after it.
    pub(crate) tables: Vec<Table>,
    pub(crate) counters: Vec<String>,
}

/// What one of the databases says of itself.
#[derive(Debug, Default)]
struct Described {
    /// Types by column by table.
    tables: BTreeMap<String, BTreeMap<String, String>>,
    /// Names without the `oms_` of sequences.
    counters: BTreeSet<String>,
}

/// A table and one that it refers to.
type Reference = (String, String);

impl Plan {
    /// Reads both schemas. They must be the same but for their types.
    pub(crate) async fn of(source: &mut Tx, target: &mut Tx) -> Result<Self> {
        let (sqlite, postgres) = sides(source, target)?;
        let (ours, (theirs, references)) = (of_sqlite(sqlite).await?, of_postgres(postgres).await?);
        combine(ours, &theirs, &references).map_err(|why| Error::Internal(format!("schemas: {why}")))
    }
}

/// Every table of ours.
pub(super) async fn postgres_tables(conn: &mut PgConnection) -> Result<Vec<String>> {
    let sql = "SELECT relname::text FROM pg_class
               WHERE relkind IN ('r', 'p') AND relname LIKE 'oms\\_%' AND pg_table_is_visible(oid) ORDER BY 1";
    Ok(sqlx::query_scalar(sql).fetch_all(conn).await?)
}

async fn of_sqlite(conn: &mut SqliteConnection) -> Result<Described> {
    let columns: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT t.name, c.name, c.type FROM sqlite_schema t, pragma_table_info(t.name) c
         WHERE t.type = 'table' AND t.name LIKE 'oms\\_%' ESCAPE '\\'",
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut described = Described::new(columns);
    if described.tables.remove(COUNTERS).is_some() {
        let names: Vec<String> = sqlx::query_scalar("SELECT name FROM oms_counter")
            .fetch_all(conn)
            .await?;
        described.counters.extend(names);
    }
    Ok(described)
}

async fn of_postgres(conn: &mut PgConnection) -> Result<(Described, Vec<Reference>)> {
    let columns: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT t.relname::text, c.attname::text, y.typname::text
         FROM pg_class t JOIN pg_attribute c ON c.attrelid = t.oid JOIN pg_type y ON y.oid = c.atttypid
         WHERE t.relkind IN ('r', 'p') AND t.relname LIKE 'oms\\_%' AND pg_table_is_visible(t.oid)
           AND c.attnum > 0 AND NOT c.attisdropped",
    )
    .fetch_all(&mut *conn)
    .await?;
    let sequences: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relkind = 'S' AND relname LIKE 'oms\\_%' AND pg_table_is_visible(oid)",
    )
    .fetch_all(&mut *conn)
    .await?;
    let references = sqlx::query_as(
        "SELECT t.relname::text, r.relname::text FROM pg_constraint k
         JOIN pg_class t ON t.oid = k.conrelid JOIN pg_class r ON r.oid = k.confrelid
         WHERE k.contype = 'f' AND pg_table_is_visible(t.oid) AND t.relname LIKE 'oms\\_%'",
    )
    .fetch_all(conn)
    .await?;
    let mut described = Described::new(columns);
    let names = sequences.iter().filter_map(|name| name.strip_prefix("oms_"));
    described.counters.extend(names.map(str::to_owned));
    Ok((described, references))
}

impl Described {
    fn new(columns: Vec<(String, String, String)>) -> Self {
        let mut described = Self::default();
        for (table, column, kind) in columns {
            described.tables.entry(table).or_default().insert(column, kind);
        }
        described
    }
}

fn combine(sqlite: Described, postgres: &Described, references: &[Reference]) -> Result<Plan, String> {
    if sqlite.counters != postgres.counters {
        return Err(format!(
            "SQLite counts {:?} and PostgreSQL {:?}",
            sqlite.counters, postgres.counters
        ));
    }
    let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) =
        (sqlite.tables.keys().collect(), postgres.tables.keys().collect());
    if ours != theirs {
        let odd: Vec<_> = ours.symmetric_difference(&theirs).collect();
        return Err(format!("only one of them has {odd:?}"));
    }
    let mut tables = BTreeMap::new();
    for (name, columns) in &postgres.tables {
        tables.insert(name.clone(), table(name, columns, &sqlite.tables[name])?);
    }
    Ok(Plan {
        tables: sorted(tables, references)?,
        counters: sqlite.counters.into_iter().collect(),
    })
}

fn table(
    name: &str,
    postgres: &BTreeMap<String, String>,
    sqlite: &BTreeMap<String, String>,
) -> Result<Table, String> {
    if let Some(odd) = sqlite.keys().find(|column| !postgres.contains_key(*column)) {
        return Err(format!("only SQLite has {name}.{odd}"));
    }
    let column = |(column, theirs): (&String, &String)| {
        let ours = sqlite
            .get(column)
            .ok_or_else(|| format!("only PostgreSQL has {name}.{column}"))?;
        let kind = Kind::of(theirs).filter(|kind| kind.in_sqlite() == ours);
        let kind = kind.ok_or_else(|| format!("{name}.{column} is {ours} here and {theirs} there"))?;
        Ok(Column {
            name: column.clone(),
            kind,
        })
    };
    let columns = postgres.iter().map(column).collect::<Result<_, String>>()?;
    Ok(Table {
        name: name.to_owned(),
        columns,
    })
}

/// Those first to which others refer.
fn sorted(mut left: BTreeMap<String, Table>, references: &[Reference]) -> Result<Vec<Table>, String> {
    let mut tables = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let refers = |name: &String| {
            references
                .iter()
                .any(|(from, to)| from == name && left.contains_key(to))
        };
        let Some(next) = left.keys().find(|name| !refers(name)).cloned() else {
            return Err(format!("{:?} refer to each other", left.keys()));
        };
        tables.extend(left.remove(&next));
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(columns: &[(&str, &str, &str)]) -> Described {
        let owned = |(a, b, c): &(&str, &str, &str)| ((*a).into(), (*b).into(), (*c).into());
        Described::new(columns.iter().map(owned).collect())
    }

    #[test]
    fn what_is_referred_to_comes_first() {
        let sqlite = described(&[("a", "id", "BLOB"), ("a", "b", "BLOB"), ("b", "id", "BLOB")]);
        let postgres = described(&[("a", "id", "uuid"), ("a", "b", "uuid"), ("b", "id", "uuid")]);
        let plan = combine(sqlite, &postgres, &[("a".into(), "b".into())]).unwrap();
        let names: Vec<_> = plan.tables.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn no_difference_goes_unnoticed() {
        let same = || described(&[("a", "id", "uuid")]);
        let why = |sqlite| combine(sqlite, &same(), &[]).unwrap_err();
        assert!(why(described(&[])).contains("\"a\""));
        assert!(why(described(&[("a", "id", "BLOB"), ("b", "id", "BLOB")])).contains("\"b\""));
        assert!(why(described(&[("a", "id", "BLOB"), ("a", "x", "TEXT")])).contains("a.x"));
        assert!(why(described(&[("a", "x", "BLOB")])).contains("a.x"));
        assert!(why(described(&[("a", "id", "TEXT")])).contains("a.id is TEXT"));
        let mut counted = described(&[("a", "id", "BLOB")]);
        counted.counters.insert("tickets".into());
        assert!(why(counted).contains("tickets"));
        let circle = [("a".into(), "a".into())];
        assert!(combine(described(&[("a", "id", "BLOB")]), &same(), &circle).is_err());
    }
}
