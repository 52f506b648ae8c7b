//! How one value is written in both databases. Between them it is text: of ids and bytes the hexadecimal digits, of
//! times the microseconds since 1970, of truth 0 or 1.

/// What a column holds. PostgreSQL has a type for each; SQLite keeps them in three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Uuid,
    Bytes,
    Boolean,
    Integer,
    Time,
    Json,
    Text,
}

impl Kind {
    /// By PostgreSQL's name of the type. None for one that the migrations have not used so far.
    pub(super) fn of(postgres: &str) -> Option<Self> {
        Some(match postgres {
            "uuid" => Self::Uuid,
            "bytea" => Self::Bytes,
            "bool" => Self::Boolean,
            "int8" => Self::Integer,
            "timestamptz" => Self::Time,
            "jsonb" => Self::Json,
            "text" => Self::Text,
            _ => return None,
        })
    }

    /// What SQLite's strict tables call it.
    pub(super) const fn in_sqlite(self) -> &'static str {
        match self {
            Self::Uuid | Self::Bytes => "BLOB",
            Self::Boolean | Self::Integer | Self::Time => "INTEGER",
            Self::Json | Self::Text => "TEXT",
        }
    }

    /// An expression that gives the column as text, or NULL.
    pub(super) fn sqlite_text(self, column: &str) -> String {
        match self {
            // `hex(NULL)` is an empty text.
            Self::Uuid | Self::Bytes => format!("iif({column} IS NULL, NULL, lower(hex({column})))"),
            Self::Boolean | Self::Integer | Self::Time => format!("CAST({column} AS TEXT)"),
            Self::Json | Self::Text => column.to_owned(),
        }
    }

    /// An expression that gives the column as text, or NULL.
    pub(super) fn postgres_text(self, column: &str) -> String {
        match self {
            Self::Uuid => format!("replace({column}::text, '-', '')"),
            Self::Bytes => format!("encode({column}, 'hex')"),
            Self::Boolean => format!("{column}::int::text"),
            // Exact: since PostgreSQL 14 `extract` gives a decimal number.
            Self::Time => format!("(extract(epoch FROM {column}) * 1000000)::bigint::text"),
            Self::Integer | Self::Json => format!("{column}::text"),
            Self::Text => column.to_owned(),
        }
    }

    /// An expression that makes the value of its text.
    pub(super) fn sqlite_value(self, text: &str) -> String {
        match self {
            Self::Uuid | Self::Bytes => format!("unhex({text})"),
            Self::Boolean | Self::Integer | Self::Time => format!("CAST({text} AS INTEGER)"),
            Self::Json | Self::Text => text.to_owned(),
        }
    }

    /// An expression that makes the value of its text.
    pub(super) fn postgres_value(self, text: &str) -> String {
        match self {
            Self::Uuid => format!("{text}::uuid"),
            Self::Bytes => format!("decode({text}, 'hex')"),
            Self::Boolean => format!("{text}::int::boolean"),
            Self::Integer => format!("{text}::bigint"),
            // The product is a float inside, which is exact for whole numbers below 2^53: until the year 2255.
            Self::Time => format!("timestamptz 'epoch' + {text}::bigint * interval '1 microsecond'"),
            Self::Json => format!("{text}::jsonb"),
            Self::Text => text.to_owned(),
        }
    }
}
