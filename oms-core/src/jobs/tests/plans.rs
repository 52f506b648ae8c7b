//! How the databases find the rows.

use sqlx::AssertSqlSafe;

use super::{START, Story, each_db};
use crate::db::{Tx, run};
use crate::id::JobId;
use crate::jobs::exchange::LEASE;
use crate::jobs::rules::{KINDS, Lane};
use crate::jobs::store;

/// A hundred thousand mails, while the statistics and the connections' kept plans are from an empty table.
#[tokio::test]
async fn statements_of_the_worker_never_read_the_whole_table() {
    each_db(async |t| {
        t.execute("ANALYZE oms_job").await;
        for _ in 0..10 {
            touch(&t, None, None).await;
        }
        let mut tx = t.oms.db().write().await.unwrap();
        let sql = tx.pick(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100030)
             INSERT INTO oms_job (id, kind, payload, run_at, created_at)
             SELECT randomblob(16), CASE WHEN i <= 100000 THEN 'send_email' ELSE 'run_refund' END, 'null', $1, $1
             FROM n",
            "INSERT INTO oms_job (id, kind, payload, run_at, created_at)
             SELECT gen_random_uuid(), CASE WHEN i <= 100000 THEN 'send_email' ELSE 'run_refund' END, 'null', $1, $1
             FROM generate_series(1, 100030) AS n (i)",
        );
        run!(&mut tx, |conn| sqlx::query(sql)
            .bind(START)
            .execute(conn)
            .await
            .map(drop))
        .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(t.claim().await.len(), 14);
        touch(&t, None, Some(16)).await;
        // The mails that wait are not even looked at.
        touch(&t, Some(Lane::Mail), Some(16)).await;
    })
    .await;
}

/// Plays a worker's statements in one transaction, where one lane may be full, and looks at how the rows were found.
async fn touch(t: &Story, full: Option<Lane>, expected: Option<usize>) {
    let (now, until) = (t.oms.now(), t.oms.now() + LEASE);
    let open = KINDS.iter().filter(|(_, lane)| Some(*lane) != full);
    let kinds: Vec<_> = open.map(|(kind, _)| (*kind, 16)).collect();
    let mut whole = t.oms.db().routine().await.unwrap();
    let tx = &mut whole;
    // The server counts for its connection: what earlier transactions did may not have been handed in yet.
    let before = rows_read(tx).await;
    let due = store::due(tx, now, &kinds, 16).await.unwrap();
    if let Some(expected) = expected {
        assert_eq!(due.len(), expected);
    }
    let mut ids: Vec<JobId> = due.into_iter().map(|(id, _)| id).collect();
    ids.resize_with(16, || JobId::new(now));
    let leased = store::lease(tx, "test", now, until, &ids).await.unwrap();
    let mut held: Vec<_> = leased.iter().map(|job| (job.id, job.lease)).collect();
    held.resize_with(16, || (JobId::new(now), 1));
    let ours = store::heartbeat(tx, now, until, &held).await.unwrap();
    assert_eq!(ours.len(), leased.len());
    assert!(store::lost(tx, now, 100).await.unwrap().is_empty());
    let done = store::end_done(tx, &held[2..]).await.unwrap();
    assert_eq!(done as usize, leased.len().saturating_sub(2));
    assert_eq!(
        store::end_later(tx, held[0], now, true, None).await.unwrap(),
        expected.is_some()
    );
    assert_eq!(
        store::end_dead(tx, held[1], "x", now).await.unwrap(),
        expected.is_some()
    );
    match tx {
        Tx::Sqlite(_) => sqlite_plans(tx, kinds.len()).await,
        Tx::Postgres(_) => {
            let after = rows_read(tx).await;
            let (scans, read) = (after.0 - before.0, after.1 - before.1);
            if expected.is_some() {
                assert_eq!(scans, 0, "the whole table was read");
                assert!(read < 500, "{read} rows were read to run 16 jobs");
            }
        }
    }
    whole.rollback().await.unwrap();
}

/// Whole-table scans and rows read of the queue by this connection, from the PostgreSQL server itself.
async fn rows_read(tx: &mut Tx) -> (i64, i64) {
    let Tx::Postgres(tx) = tx else { return (0, 0) };
    let counted = sqlx::query_as(
        "SELECT seq_scan, seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'oms_job'",
    );
    counted.fetch_one(&mut **tx).await.unwrap()
}

async fn sqlite_plans(tx: &mut Tx, kinds: usize) {
    let texts = [
        (
            store::due_sql(tx, kinds),
            "USING INDEX oms_job_ready (kind=? AND run_at<?)",
        ),
        (store::lease_sql(tx), "INDEX sqlite_autoindex_oms_job_1 (id=?)"),
        (store::heartbeat_sql(tx), "INDEX oms_job_leased (leased_until>?)"),
        (store::done_sql(tx), "INDEX oms_job_leased (leased_until>?)"),
        (
            store::lost_sql(tx).into(),
            "USING INDEX oms_job_leased (leased_until<?)",
        ),
    ];
    // Leased jobs are as many as all workers have slots: walking those is as good as looking each up.
    for (text, index) in texts {
        let explain = format!("EXPLAIN QUERY PLAN {text}");
        let plan: Vec<(i64, i64, i64, String)> = run!(tx, |conn| {
            sqlx::query_as(AssertSqlSafe(explain)).fetch_all(conn).await
        })
        .unwrap();
        let steps: Vec<_> = plan.iter().map(|(_, _, _, step)| step.as_str()).collect();
        let found = steps.iter().any(|step| step.contains(index));
        // What stands below a walk that is cut off may be sorted: it is never more than was asked for.
        let cut = text.contains("AS of_kind_0");
        let reads_all = steps
            .iter()
            .any(|step| step.starts_with("SCAN oms_job") || (step.contains("TEMP B-TREE") && !cut));
        assert!(found && !reads_all, "{text}\n{steps:#?}");
    }
}
