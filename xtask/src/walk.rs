//! `cargo xtask run --walk`: one customer's story, over HTTP alone, as `docs/openapi.json` describes it.
//! Each step checks what it got, so the walk fails where the story goes wrong.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::api::{Api, data, number, text};
use crate::mailbox::Mailbox;

const QUANTITY: i64 = 2;
/// For what happens in the background: mails and webhooks.
const PATIENCE: Duration = Duration::from_secs(20);

/// Plays it against the server at this address; `mailbox` opens the folder with the mails to somebody.
pub(crate) fn play(address: &str, mailbox: impl FnOnce(&str) -> Mailbox) -> Result<()> {
    let mut story = Story::new(address, mailbox);
    story.step("register", Story::register)?;
    let token = story.step("verification mail", |s| s.read_verification_mail())?;
    story.step("verify the address", |s| s.verify(&token))?;
    story.step("log in", Story::log_in)?;
    story.step("a shop", |s| s.open_shop())?;
    let item = story.step("find a product", |s| s.find_product())?;
    let order = story.step("place the order", |s| s.place_order(&item))?;
    story.step("stock is reserved", |s| s.check_stock(&item))?;
    let url = story.step("start the payment", |s| s.start_payment(&order))?;
    story.step("the bank's page", |s| s.open_page(&url, &order))?;
    let seen = story.mailbox.snapshot()?;
    story.step("approve at the bank", |s| s.approve(&url))?;
    story.step("webhook: order is paid", |s| s.wait_until_paid(&order))?;
    story.step("timeline of the order", |s| s.read_timeline(&order))?;
    story.step("confirmation mail", |s| s.read_confirmation(&order, &seen))
}

struct Story {
    api: Api,
    mailbox: Mailbox,
    username: String,
    email: String,
    password: String,
    /// Different in each run, so that the walk can be repeated on the same data.
    run: String,
    steps: u32,
}

struct Item {
    product: String,
    sku: String,
    name: String,
    price: i64,
    currency: String,
    available: i64,
}

struct Order {
    id: String,
    number: String,
    total: i64,
    currency: String,
}

/// What a step hands on, and what it prints.
type Step<T> = Result<(T, String)>;

impl Story {
    fn new(address: &str, mailbox: impl FnOnce(&str) -> Mailbox) -> Self {
        let since_1970 = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let run = format!("{:x}{:x}", since_1970.as_millis(), std::process::id());
        let email = format!("walk{run}@example.com");
        Self {
            api: Api::new(address),
            mailbox: mailbox(&email),
            username: format!("walk{run}"),
            password: format!("long walk {run}"),
            email,
            run,
            steps: 0,
        }
    }

    fn step<T>(&mut self, title: &str, action: impl FnOnce(&mut Self) -> Step<T>) -> Result<T> {
        self.steps += 1;
        let started = Instant::now();
        let (result, figures) =
            action(self).with_context(|| format!("step {}, {title}, failed", self.steps))?;
        let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
        println!(
            "{:>2}  {title:<24} {milliseconds:>8.1} ms   {figures}",
            self.steps
        );
        Ok(result)
    }

    fn register(&mut self) -> Step<()> {
        let body = json!({"username": self.username, "email": self.email, "password": self.password});
        let user = self.api.post("/v1/users", &body)?.expect(201)?;
        ensure!(
            user["email_verified"] == false,
            "a new user's address counts as verified:\n{user:#}"
        );
        Ok((
            (),
            format!("{} {} <{}>", text(&user, "/id")?, self.username, self.email),
        ))
    }

    fn read_verification_mail(&self) -> Step<String> {
        let none = HashSet::new();
        let mail = wait_for(
            "the verification mail (is MAIL_SERVER set? then mails are not files)",
            || self.mailbox.newest(&none, "/verify?token="),
        )?;
        let token = mail
            .verification_token()
            .with_context(|| format!("no token in {}", mail.path.display()))?;
        Ok((
            token.to_owned(),
            format!("\"{}\" in {}", mail.subject(), mail.path.display()),
        ))
    }

    fn verify(&self, token: &str) -> Step<()> {
        self.api
            .post("/v1/users/verify", &json!({"token": token}))?
            .expect(204)?;
        let again = self
            .api
            .post("/v1/users/verify", &json!({"token": token}))?
            .status;
        ensure!(
            (400..500).contains(&again),
            "the token worked twice: the second answer was {again}"
        );
        Ok(((), format!("the token works once; the second try gets {again}")))
    }

    fn log_in(&mut self) -> Step<()> {
        let body = json!({"identifier": self.username, "password": self.password});
        let session = self.api.post("/v1/sessions", &body)?.expect(200)?;
        let token = text(&session, "/access_token")?;
        let figures = format!(
            "token of {} characters, good for {} s",
            token.len(),
            number(&session, "/expires_in")?
        );
        self.api.token = Some(token);
        let me = self.api.get("/v1/me")?.expect(200)?;
        ensure!(
            me["email_verified"] == true,
            "the address is not verified:\n{me:#}"
        );
        Ok(((), figures))
    }

    fn find_product(&self) -> Step<Item> {
        let page = self.api.get("/v1/products?limit=50")?.expect(200)?;
        for product in data(&page)? {
            for variant in product["variants"].as_array().into_iter().flatten() {
                let item = Item {
                    product: text(product, "/id")?,
                    name: text(product, "/name")?,
                    sku: text(variant, "/sku")?,
                    price: number(variant, "/price/amount")?,
                    currency: text(variant, "/price/currency")?,
                    available: self.available(&text(product, "/id")?, &text(variant, "/sku")?)?,
                };
                if item.available >= QUANTITY {
                    let Item {
                        name,
                        sku,
                        price,
                        currency,
                        available,
                        ..
                    } = &item;
                    let figures =
                        format!("{name} ({sku}), {price} {currency} minor units, {available} available");
                    return Ok((item, figures));
                }
            }
        }
        bail!("no product has {QUANTITY} units available:\n{page:#}")
    }

    /// A shop that was never used has nothing to sell: then whoever walks sells a mug first.
    fn open_shop(&self) -> Step<()> {
        let page = self.api.get("/v1/products?limit=1")?.expect(200)?;
        if !data(&page)?.is_empty() {
            return Ok(((), "there is one".into()));
        }
        let business = json!({"name": "The walker's mugs"});
        let business = self.api.post("/v1/businesses", &business)?.expect(201)?;
        let product = json!({
            "business_id": business["id"], "name": "Mug", "sku": "WALK-MUG",
            "price": {"amount": 1299, "currency": "EUR"},
        });
        self.api.post("/v1/products", &product)?.expect(201)?;
        let stock = json!({"delta": 1000, "reason": "delivery"});
        let key = format!("delivery-{}", self.run);
        self.api
            .post_once("/v1/stock/WALK-MUG/adjustments", &key, &stock)?
            .expect(201)?;
        Ok(((), "made one that sells mugs".into()))
    }

    fn place_order(&self, item: &Item) -> Step<Order> {
        let body = json!({
            "lines": [{"sku": item.sku, "quantity": QUANTITY}],
            "shipping_address": {
                "name": "Wanda Walker", "line1": "1 Long Road", "city": "Utrecht", "postal_code": "3511", "country": "NL",
            },
        });
        let key = format!("order-{}", self.run);
        let order = self.api.post_once("/v1/orders", &key, &body)?.expect(201)?;
        let again = self.api.post_once("/v1/orders", &key, &body)?.expect(201)?;
        ensure!(
            order["id"] == again["id"],
            "the same Idempotency-Key made two orders:\n{order:#}\n{again:#}"
        );
        ensure!(
            order["status"] == "awaiting_payment",
            "a new order is not awaiting payment:\n{order:#}"
        );
        let order = Order {
            id: text(&order, "/id")?,
            number: shown(&order["number"]),
            total: number(&order, "/total/amount")?,
            currency: text(&order, "/total/currency")?,
        };
        let expected = item.price * QUANTITY;
        ensure!(
            order.total == expected,
            "the total is {}, not {QUANTITY} x {} = {expected}",
            order.total,
            item.price
        );
        let figures = format!(
            "{} number {}, {QUANTITY} x {} = {}",
            order.id,
            order.number,
            item.sku,
            order.money()
        );
        Ok((order, figures))
    }

    fn check_stock(&self, item: &Item) -> Step<()> {
        let now = self.available(&item.product, &item.sku)?;
        let before = item.available;
        ensure!(
            now == before - QUANTITY,
            "{} had {before} available, and {now} after {QUANTITY} were ordered",
            item.sku
        );
        Ok((
            (),
            format!("{}: {before} available before, {now} after", item.sku),
        ))
    }

    fn start_payment(&self, order: &Order) -> Step<String> {
        let path = format!("/v1/orders/{}/payments", order.id);
        let key = format!("payment-{}", self.run);
        let payment = self
            .api
            .post_once(&path, &key, &json!({"account": "mock"}))?
            .expect(201)?;
        ensure!(
            payment["status"] == "action_required",
            "the payment asks for no action:\n{payment:#}"
        );
        ensure!(
            number(&payment, "/amount/amount")? == order.total,
            "the payment is over another amount:\n{payment:#}"
        );
        let url = text(&payment, "/next_action/url")?;
        let figures = format!("{} over {}, {url}", text(&payment, "/id")?, order.money());
        Ok((url, figures))
    }

    fn open_page(&self, url: &str, order: &Order) -> Step<()> {
        let page = self.api.get(url)?.expect_page()?;
        let money = order.money();
        let (amount, _) = money
            .split_once(' ')
            .context("money is an amount and a currency")?;
        ensure!(
            page.contains(amount) && page.contains(&order.currency),
            "the page does not show {money}:\n{page}"
        );
        Ok(((), format!("shows {money}")))
    }

    fn approve(&self, url: &str) -> Step<()> {
        let reply = self.api.press(url, "decision", "approve")?;
        let status = reply.status;
        reply.expect_page()?;
        Ok(((), format!("the bank answers {status}")))
    }

    fn wait_until_paid(&self, order: &Order) -> Step<()> {
        let mut last = Value::Null;
        let paid = wait_for("the webhook that makes the order paid", || {
            last = self.api.get(&format!("/v1/orders/{}", order.id))?.expect(200)?;
            Ok((last["status"] == "paid").then_some(()))
        });
        if let Err(error) = paid {
            bail!("{error:#}; the order is:\n{last:#}");
        }
        let captured = last.pointer("/payments/0/status").map(shown);
        Ok((
            (),
            format!(
                "{} is paid, its payment is {}",
                order.id,
                captured.unwrap_or_else(|| "not shown".into())
            ),
        ))
    }

    fn read_timeline(&self, order: &Order) -> Step<()> {
        let page = self
            .api
            .get(&format!("/v1/orders/{}/events", order.id))?
            .expect(200)?;
        let events = data(&page)?;
        ensure!(
            events.len() >= 2,
            "the timeline of a paid order has fewer than two entries:\n{page:#}"
        );
        let name = |event: &Value| {
            ["kind", "type", "event"]
                .iter()
                .find_map(|key| event[key].as_str().map(str::to_owned))
        };
        let names: Vec<String> = events.iter().filter_map(name).collect();
        Ok(((), format!("{} entries: {}", events.len(), names.join(", "))))
    }

    /// The mail that came after the payment and names the order.
    fn read_confirmation(&self, order: &Order, seen: &HashSet<std::path::PathBuf>) -> Step<()> {
        let mail = wait_for("the confirmation mail", || {
            self.mailbox.newest(seen, &order.number)
        })?;
        Ok(((), format!("\"{}\" in {}", mail.subject(), mail.path.display())))
    }

    /// From the product if it tells, otherwise from the stock itself.
    fn available(&self, product: &str, sku: &str) -> Result<i64> {
        let product = self.api.get(&format!("/v1/products/{product}"))?.expect(200)?;
        let mut variants = product["variants"].as_array().into_iter().flatten();
        let told = variants
            .find(|variant| variant["sku"] == sku)
            .and_then(|variant| variant["available"].as_i64());
        match told {
            Some(available) => Ok(available),
            None => number(
                &self.api.get(&format!("/v1/stock/{sku}"))?.expect(200)?,
                "/available",
            ),
        }
    }
}

impl Order {
    /// As people write it, `25.98 EUR`: the demo shop sells in a currency with two decimals.
    fn money(&self) -> String {
        format!("{}.{:02} {}", self.total / 100, self.total % 100, self.currency)
    }
}

/// Asks every 50 ms until there is an answer or patience ends.
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("waited {} s in vain for {what}", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Text without its quotes; anything else as JSON.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
