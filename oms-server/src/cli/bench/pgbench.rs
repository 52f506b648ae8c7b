//! The same baseline without any driver of ours: PostgreSQL's own load generator.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::load::{Latencies, Load, Span};
use super::shop::{CUSTOMERS, HOT_BASELINE, Measured, Mix, SKUS, Shop};

/// UUIDv7, as the library makes them: random ids would make PostgreSQL slower than it has to be.
const UUID_V7: &str = "encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing \
     substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 52, 1), 53, 1), \
     'hex')::uuid";

/// One transaction for each order, with the rows of [`super::baseline`]. Ids are made inside the statements.
const TRANSACTION: &str = "
BEGIN;
INSERT INTO oms_idempotency (id, operation, key, fingerprint, result_id, created_at)
    SELECT gen_random_uuid(), 'place_order', 'pgbench-0000000000', decode(repeat('00', 32), 'hex'), <id>, now()
    ON CONFLICT DO NOTHING RETURNING result_id AS order_id \\gset
SELECT v.id AS variant_id, v.business_id, p.name AS product_name, v.price, v.currency,
       s.on_hand - s.allocated AS available
    FROM oms_variant v JOIN oms_product p ON p.id = v.product_id JOIN oms_stock s ON s.variant_id = v.id
    WHERE v.sku = <sku> AND v.deleted_at IS NULL FOR UPDATE OF s \\gset
UPDATE oms_stock SET allocated = allocated + 1, version = version + 1
    WHERE variant_id = :variant_id AND on_hand - allocated >= 1;
INSERT INTO oms_order (id, number, user_id, email, shipping_address, currency, subtotal, total,
                       state, payment_state, expires_at, created_at, updated_at)
    SELECT :order_id, nextval('oms_order_number'), u.id, u.email,
           '{\"name\":\"Ada Example\",\"line1\":\"1 Main Street\",\"city\":\"Oslo\",\"postal_code\":\"0150\",\"country\":\"NO\"}',
           :currency, :price, :price, 'awaiting_payment', 'unpaid', now() + interval '30 minutes', now(), now()
    FROM oms_user u WHERE u.username_key = 'bench-' || :customer;
INSERT INTO oms_order_line (order_id, line, variant_id, business_id, sku, name, unit_price, quantity, total)
    VALUES (:order_id, 1, :variant_id, :business_id, <sku>, :product_name, :price, 1, :price);
INSERT INTO oms_stock_movement (variant_id, id, delta_on_hand, delta_allocated, cause, order_id, actor, created_at)
    VALUES (:variant_id, <id>, 0, 1, 'allocate', :order_id, 'usr_01h455vb4pex5vsknk084sn02q', now());
INSERT INTO oms_order_event (order_id, version, kind, actor, data, created_at)
    VALUES (:order_id, 1, 'placed', 'usr_01h455vb4pex5vsknk084sn02q', '{}', now());
COMMIT;
";

/// A program of PostgreSQL, from PATH or from where `pg_config` says the others are.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        let mut command = Command::new(path);
        let command = command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let beside = || {
        let answer = Command::new("pg_config").arg("--bindir").output().ok()?;
        let folder = String::from_utf8(answer.stdout).ok()?;
        Some(Path::new(folder.trim()).join(program))
    };
    let in_path = Some(PathBuf::from(program)).filter(runs);
    in_path.or_else(|| beside().filter(runs))
}

/// `pgbench -M prepared -c <clients>`, measured from its log of every transaction, as the other callers are.
pub(super) async fn measure(
    program: &Path,
    shop: &Shop,
    dir: &Path,
    clients: usize,
    mix: Mix,
    span: Span,
) -> Result<Measured> {
    let script = dir.join("pgbench.sql");
    fs::write(&script, text(mix))?;
    let logs = dir.join("pgbench-log");
    fs::create_dir(&logs)?;
    let seconds = (span.warm_up + span.measured).as_secs_f64().ceil();
    let mut command = Command::new(program);
    command
        .args([
            "-n",
            "-M",
            "prepared",
            "-c",
            &clients.to_string(),
            "-j",
            &clients.min(2).to_string(),
        ])
        .args(["-T", &seconds.to_string(), "-l", "--log-prefix"])
        .arg(logs.join("log"))
        .arg("-f")
        .arg(&script)
        .arg(&shop.url);
    let before = shop.last_number().await?;
    let ended = tokio::task::spawn_blocking(move || command.output())
        .await?
        .context("pgbench")?;
    ensure!(
        ended.status.success(),
        "pgbench failed: {}",
        String::from_utf8_lossy(&ended.stderr)
    );
    let load = read(&logs, span)?;
    fs::remove_dir_all(&logs)?;
    let batch = shop.check_ledger(before, load.acknowledged).await?;
    Ok(Measured { load, batch })
}

fn text(mix: Mix) -> String {
    let sku = match mix {
        Mix::Hot => format!("'{HOT_BASELINE}'"),
        Mix::Uniform => "('uniform-' || lpad(:number, 5, '0'))".into(),
    };
    let transaction = TRANSACTION.replace("<id>", UUID_V7).replace("<sku>", &sku);
    format!(
        "\\set number random(0, {})\n\\set customer random(0, {}){transaction}",
        SKUS - 1,
        CUSTOMERS - 1
    )
}

/// Lines of `client transaction micros script epoch micros`.
fn read(logs: &Path, span: Span) -> Result<Load> {
    let mut transactions = Vec::new();
    for file in fs::read_dir(logs)? {
        let text = fs::read_to_string(file?.path())?;
        for line in text.lines() {
            let fields: Vec<u64> = line.split(' ').map_while(|field| field.parse().ok()).collect();
            let [_, _, latency, _, seconds, micros, ..] = fields[..] else {
                anyhow::bail!("pgbench wrote a line that is none of its log's: {line}");
            };
            transactions.push((Duration::new(seconds, 0) + Duration::from_micros(micros), latency));
        }
    }
    let first = transactions
        .iter()
        .map(|(at, _)| *at)
        .min()
        .context("pgbench did nothing")?;
    let measured = (first + span.warm_up)..(first + span.warm_up + span.measured);
    let mut latencies = Latencies::new()?;
    for (_, latency) in transactions.iter().filter(|(at, _)| measured.contains(at)) {
        latencies.record(Duration::from_micros(*latency));
    }
    Ok(latencies.load(span.measured, transactions.len() as u64))
}
