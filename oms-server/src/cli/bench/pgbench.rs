//! The same baseline without any driver of ours: PostgreSQL's own load generator.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::load::{Latencies, Load, Span};
use super::shop::{CUSTOMERS, HOT_BASELINE, Measured, Mix, SKUS, Shop, UNKNOWN};

/// UUIDv7, as the library makes them: random ids would make PostgreSQL slower than it has to be.
pub(super) const UUID_V7: &str = "encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing \
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

/// The same for an order of several lines, in as few statements as it can have: its lines are written together.
const BEGIN: &str = "
BEGIN;
INSERT INTO oms_idempotency (id, operation, key, fingerprint, result_id, created_at)
    SELECT gen_random_uuid(), 'place_order', 'pgbench-0000000000', decode(repeat('00', 32), 'hex'), <id>, now()
    ON CONFLICT DO NOTHING RETURNING result_id AS order_id \\gset
SELECT array_agg(id) AS variants, sum(price)::bigint AS total, min(currency) AS currency
    FROM (SELECT v.id, v.price, v.currency
          FROM oms_variant v JOIN oms_stock s ON s.variant_id = v.id
          WHERE v.sku = ANY(<skus>) AND v.deleted_at IS NULL AND s.on_hand - s.allocated >= 1
          ORDER BY v.id FOR UPDATE OF s) AS locked \\gset
";
const FINISH: &str = "
UPDATE oms_stock SET allocated = allocated + 1, version = version + 1
    WHERE variant_id = ANY(:variants::uuid[]) AND on_hand - allocated >= 1;
INSERT INTO oms_order (id, number, user_id, email, shipping_address, currency, subtotal, total,
                       state, payment_state, expires_at, created_at, updated_at)
    SELECT :order_id, nextval('oms_order_number'), u.id, u.email,
           '{\"name\":\"Ada Example\",\"line1\":\"1 Main Street\",\"city\":\"Oslo\",\"postal_code\":\"0150\",\"country\":\"NO\"}',
           :currency, :total, :total, 'awaiting_payment', 'unpaid', now() + interval '30 minutes', now(), now()
    FROM oms_user u WHERE u.username_key = 'bench-' || :customer;
INSERT INTO oms_order_line (order_id, line, variant_id, business_id, sku, name, unit_price, quantity, total)
    SELECT :order_id, row_number() OVER (), v.id, v.business_id, v.sku, p.name, v.price, 1, v.price
    FROM oms_variant v JOIN oms_product p ON p.id = v.product_id WHERE v.id = ANY(:variants::uuid[]);
INSERT INTO oms_stock_movement (variant_id, id, delta_on_hand, delta_allocated, cause, order_id, actor, created_at)
    SELECT variant_id, <id>, 0, 1, 'allocate', :order_id, 'usr_01h455vb4pex5vsknk084sn02q', now()
    FROM UNNEST(:variants::uuid[]) AS variant_id;
INSERT INTO oms_order_event (order_id, version, kind, actor, data, created_at)
    VALUES (:order_id, 1, 'placed', 'usr_01h455vb4pex5vsknk084sn02q', '{}', now());
COMMIT;
";

/// What pgbench runs: a name, how often of a hundred, and whether it places an order.
struct Script {
    name: &'static str,
    weight: u32,
    places: bool,
    text: String,
}

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
    let scripts = scripts(mix);
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
        .arg(logs.join("log"));
    for script in &scripts {
        let path = dir.join(script.name);
        fs::write(&path, &script.text)?;
        command
            .arg("-f")
            .arg(format!("{}@{}", path.display(), script.weight));
    }
    command.arg(&shop.url);
    let before = shop.last_number().await?;
    let ended = tokio::task::spawn_blocking(move || command.output())
        .await?
        .context("pgbench")?;
    ensure!(
        ended.status.success(),
        "pgbench failed: {}",
        String::from_utf8_lossy(&ended.stderr)
    );
    let load = read(&logs, &scripts, span)?;
    fs::remove_dir_all(&logs)?;
    let batch = shop.check_ledger(before, load.acknowledged).await?;
    Ok(Measured { load, batch })
}

fn scripts(mix: Mix) -> Vec<Script> {
    let script = |name, weight, places, sets: &str, text: &str| Script {
        name,
        weight,
        places,
        text: format!("{sets}\\set customer random(0, {})\n{text}", CUSTOMERS - 1).replace("<id>", UUID_V7),
    };
    let sku = |number: &str| format!("'uniform-' || lpad(:{number}, 5, '0')");
    match mix {
        Mix::Hot => {
            let text = TRANSACTION.replace("<sku>", &format!("'{HOT_BASELINE}'"));
            vec![script("order.sql", 1, true, "", &text)]
        }
        Mix::Uniform => {
            let sets = format!("\\set number random(0, {})\n", SKUS - 1);
            let text = TRANSACTION.replace("<sku>", &format!("({})", sku("number")));
            vec![script("order.sql", 1, true, &sets, &text)]
        }
        Mix::NewOrder => {
            let names: Vec<String> = (1..=15).map(|n| format!("sku{n}")).collect();
            let zipf = |name| format!("\\set {name} random_zipfian(1, {SKUS}, 1.001) - 1\n");
            let sets = format!(
                "\\set lines random(5, 15)\n{}",
                names.iter().map(zipf).collect::<String>()
            );
            let skus: Vec<String> = names.iter().map(|name| sku(name)).collect();
            let skus = format!("(ARRAY[{}])[1 : :lines]", skus.join(", "));
            let begin = |skus: &str| BEGIN.replace("<skus>", skus);
            let placed = format!("{}{FINISH}", begin(&skus));
            let unknown = format!("{}ROLLBACK;\n", begin(&format!("{skus} || ARRAY['{UNKNOWN}']")));
            vec![
                script("order.sql", 99, true, &sets, &placed),
                script("unknown.sql", 1, false, &sets, &unknown),
            ]
        }
    }
}

/// Lines of `client transaction micros script epoch micros`.
fn read(logs: &Path, scripts: &[Script], span: Span) -> Result<Load> {
    let (mut transactions, mut placed) = (Vec::new(), 0);
    for file in fs::read_dir(logs)? {
        let text = fs::read_to_string(file?.path())?;
        for line in text.lines() {
            let fields: Vec<u64> = line.split(' ').map_while(|field| field.parse().ok()).collect();
            let [_, _, latency, script, seconds, micros, ..] = fields[..] else {
                anyhow::bail!("pgbench wrote a line that is none of its log's: {line}");
            };
            let script = usize::try_from(script).ok().and_then(|index| scripts.get(index));
            placed += u64::from(script.is_some_and(|script| script.places));
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
    Ok(latencies.load(span.measured, placed))
}
