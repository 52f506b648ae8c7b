//! Every story here is played on SQLite and on PostgreSQL.

mod support;

mod schema;
