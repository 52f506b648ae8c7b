//! Lists of values in a statement.

use sqlx::{Database, Encode, QueryBuilder, Type};

/// Adds `($1, $2, ..)` for at least one value. It is filled up with repetitions to a power of two, so that there are few
/// texts for a connection to remember.
pub(crate) fn push_list<'t, DB, T>(sql: &mut QueryBuilder<DB>, values: &[T])
where
    DB: Database,
    T: Copy + Encode<'t, DB> + Type<DB>,
{
    sql.push("(");
    let mut list = sql.separated(", ");
    for value in values.iter().cycle().take(values.len().next_power_of_two()) {
        list.push_bind(*value);
    }
    sql.push(")");
}
