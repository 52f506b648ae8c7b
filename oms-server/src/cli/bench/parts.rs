//! What is measured besides orders, each part beside its yardstick.

use std::time::Duration;

use anyhow::Result;

use super::goals::Reach;
use super::in_process::InProcess;
use super::load::Span;
use super::over_http::{OverHttp, Server};
use super::shop::{HOT_OMS, Mix, Shop};
use super::{Bench, events, growth, jobs, megabytes, overload, webhooks};

impl Bench<'_> {
    pub(super) async fn jobs(&mut self, shop: &Shop) -> Result<()> {
        self.progress.set_message("jobs");
        let jobs = if self.options.quick { 5_000 } else { 50_000 };
        let (batched, single) = jobs::measure(shop, jobs).await?;
        let reach = Reach::AtLeast(10.0);
        self.goals
            .add("jobs/s", batched, ("one at a time", single), reach);
        let ten_thousand = ("10,000", 10_000.0);
        self.goals
            .add("jobs/s, absolutely", batched, ten_thousand, Reach::AtLeast(1.0));
        Ok(())
    }

    pub(super) async fn events(&mut self, shop: &Shop) -> Result<()> {
        self.progress.set_message("webhooks over HTTP");
        let count = if self.options.quick { 500 } else { 3_000 };
        let data_dir = self.dir.join("server-events");
        // Mails of paid orders are another's work.
        let server = Server::start_with(&shop.url, &data_dir, self.plugin_dir, &["--no-worker"])?;
        let tokens = OverHttp::log_in(&server, shop).await?;
        let customers = OverHttp::callers(&server, &tokens, self.wishes(16, Mix::Uniform, HOT_OMS)).await?;
        let customers = events::start_payments(customers, count).await?;
        let (rate, p50) = events::measure(shop, &server, &data_dir).await?;
        self.others.push(format!(
            "webhooks over HTTP that pay an order: {rate:.0}/s, p50 {:.2} ms, {} senders",
            p50.as_secs_f64() * 1e3,
            events::SENDERS
        ));
        if let Some(program) = &self.pgbench {
            events::start_payments(customers, count).await?;
            let bare = events::yardstick(shop, program, &self.dir).await?;
            let yardstick = ("pgbench -c 32, the same statements", bare);
            self.goals.add(
                "webhooks/s that pay an order",
                rate,
                yardstick,
                Reach::AtLeast(0.8),
            );
        }
        server.stop()
    }

    pub(super) async fn overload(&mut self, shop: &Shop) -> Result<()> {
        self.progress.set_message("overload");
        let data_dir = self.dir.join("server-overload");
        let server = Server::start(&shop.url, &data_dir, self.plugin_dir)?;
        let tokens = OverHttp::log_in(&server, shop).await?;
        let callers = OverHttp::callers(&server, &tokens, self.wishes(64, Mix::Hot, HOT_OMS)).await?;
        let peak = shop.measure(callers, self.span).await?.load.per_second;
        let over = overload::measure(shop, &server, &tokens, peak, &self.keys, self.span).await?;
        self.others.push(format!(
            "overload: {:.0} placed and {:.0} turned away each second; the longest answer took {:.2} s",
            over.placed,
            over.refused,
            over.longest.as_secs_f64()
        ));
        let reach = Reach::AtLeast(0.8);
        self.goals.add(
            "orders/s under overload",
            over.placed,
            ("64 clients", peak),
            reach,
        );
        server.stop()
    }

    /// Two servers on one database beside one of them: the same number of callers, half of them at each.
    pub(super) async fn pair(&mut self, shop: &Shop) -> Result<()> {
        self.progress.set_message("two servers");
        let start = |name: &str| Server::start(&shop.url, &self.dir.join(name), self.plugin_dir);
        let first = start("server-first")?;
        let tokens = OverHttp::log_in(&first, shop).await?;
        let callers = OverHttp::callers(&first, &tokens, self.wishes(64, Mix::Hot, HOT_OMS)).await?;
        let alone = shop.measure(callers, self.span).await?.load.per_second;
        let second = start("server-second")?;
        let its_tokens = OverHttp::log_in(&second, shop).await?;
        let mut callers = Vec::new();
        for (server, tokens) in [(&first, &tokens), (&second, &its_tokens)] {
            let wishes = self.wishes(32, Mix::Hot, HOT_OMS);
            callers.extend(OverHttp::callers(server, tokens, wishes).await?);
        }
        let both = shop.measure(callers, self.span).await?.load.per_second;
        let reach = Reach::AtLeast(0.9);
        self.goals
            .add("orders/s of two servers, hot", both, ("one server", alone), reach);
        first.stop()?;
        second.stop()
    }

    pub(super) async fn growth(&mut self, shop: &Shop) -> Result<()> {
        let sizes: &[u64] = match self.options.quick {
            true => &[1_000, 100_000],
            false => &[1_000, 100_000, 1_000_000],
        };
        let oms = shop.oms().await?;
        let mut first = None;
        for &size in sizes {
            self.progress.set_message(format!("growth to {size}"));
            growth::grow_to(shop, size).await?;
            for _ in 0..self.options.rounds.max(3) {
                let callers = InProcess::callers(shop, &oms, self.wishes(64, Mix::Uniform, HOT_OMS));
                let rate = shop.measure(callers, self.span).await?.load.per_second;
                let base = *first.get_or_insert(rate);
                let work = format!("seconds for each order at {size} orders");
                self.goals
                    .add(&work, 1.0 / rate, ("at 1,000", 1.0 / base), Reach::AtMost(1.25));
            }
        }
        for _ in 0..self.options.rounds.max(3) {
            let (near, far) = growth::pages(&oms).await?;
            let (near, far) = (near.as_secs_f64() * 1e3, far.as_secs_f64() * 1e3);
            self.goals.add(
                "ms for page 1,000 of orders",
                far,
                ("page 1", near),
                Reach::AtMost(1.25),
            );
        }
        oms.shutdown().await;
        Ok(())
    }

    /// Whether memory stays level while orders come in over HTTP.
    pub(super) async fn soak(&mut self, shop: &Shop) -> Result<()> {
        let data_dir = self.dir.join("server-soak");
        let server = Server::start(&shop.url, &data_dir, self.plugin_dir)?;
        let tokens = OverHttp::log_in(&server, shop).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let idle = server.resident()?;
        let minute = Span {
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(self.span.measured.as_secs().div_ceil(10)),
        };
        let mut samples = Vec::new();
        for tenth in 1..=10 {
            self.progress.set_message(format!("soak, {tenth} of 10"));
            let callers = OverHttp::callers(&server, &tokens, self.wishes(64, Mix::Hot, HOT_OMS)).await?;
            let load = shop.measure(callers, minute).await?.load;
            samples.push(format!(
                "{} ({:.0}/s)",
                megabytes(server.resident()?),
                load.per_second
            ));
        }
        let grown = server.resident()?.saturating_sub(idle) as f64 / 1e6;
        self.goals.add(
            "MB more than idle under load",
            grown,
            ("150", 150.0),
            Reach::AtMost(1.0),
        );
        self.others.push(format!(
            "memory: idle {}, then {}",
            megabytes(idle),
            samples.join(", ")
        ));
        server.stop()
    }

    pub(super) async fn memory(&mut self) -> Result<()> {
        self.progress.set_message("memory");
        let data_dir = self.dir.join("idle");
        let url = format!("sqlite://{}", data_dir.join("oms.db").display());
        let server = Server::start(&url, &data_dir, self.plugin_dir)?;
        webhooks::deliver(&server, &data_dir).await?;
        // Idle: what the start and the webhook needed for a moment is given back.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let resident = megabytes(server.resident()?);
        self.others.push(format!(
            "memory of the idle server with the mock plugin, after one webhook: {resident}"
        ));
        server.stop()
    }
}
