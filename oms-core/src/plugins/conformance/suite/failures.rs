//! Rules about the network and about a gateway that fails: what may have happened must never be called a failure.

use super::{Bench, Looked, verdict};
use crate::plugins::conformance::fixtures::{Call, Exchange, Fault};
use crate::plugins::conformance::player::is_no;
use crate::plugins::conformance::report::{RunReport, Verdict};
use crate::plugins::tape::{HttpAnswer, HttpResponse, Text};

/// What a request meets, and what may come of it.
struct Trouble {
    name: &'static str,
    answer: HttpAnswer,
    /// When the request would have changed something at the gateway.
    change: &'static [&'static str],
    /// When it was a question.
    question: &'static [&'static str],
}

const OPEN: &[&str] = &["unavailable", "indeterminate"];

impl Bench<'_> {
    pub(super) async fn not_sent(&self, runs: &mut Vec<RunReport>) -> Looked {
        let trouble = Trouble {
            name: "a request that could not be sent",
            answer: HttpAnswer::NotSent("connection refused".into()),
            change: &["unavailable"],
            question: OPEN,
        };
        self.meet(&[trouble], runs).await
    }

    pub(super) async fn no_answer(&self, runs: &mut Vec<RunReport>) -> Looked {
        let trouble = Trouble {
            name: "a request that timed out after it was sent",
            answer: HttpAnswer::OutcomeUnknown("timed out".into()),
            change: &["indeterminate"],
            question: OPEN,
        };
        self.meet(&[trouble], runs).await
    }

    pub(super) async fn server_errors(&self, runs: &mut Vec<RunReport>) -> Looked {
        let page = |status, name| Trouble {
            name,
            answer: response(status, "<html><body>Something went wrong</body></html>"),
            change: &["indeterminate"],
            question: OPEN,
        };
        let slow = Trouble {
            name: "an answer with status 429",
            answer: response(429, "{}"),
            change: &["rate_limited", "unavailable"],
            question: &["rate_limited", "unavailable", "indeterminate"],
        };
        let troubles = [
            page(500, "an answer with status 500 and a foreign page"),
            page(504, "an answer with status 504 and a foreign page"),
            slow,
        ];
        self.meet(&troubles, runs).await
    }

    pub(super) async fn unreadable(&self, runs: &mut Vec<RunReport>) -> Looked {
        let body = |name, text| Trouble {
            name,
            answer: response(200, text),
            change: &["indeterminate"],
            question: OPEN,
        };
        let troubles = [
            body("a successful answer that ends too early", "{\"id\": \"x"),
            body(
                "a successful answer that is a foreign page",
                "<html>Welcome to the hotel</html>",
            ),
        ];
        self.meet(&troubles, runs).await
    }

    /// Each request of each operation meets each trouble.
    async fn meet(&self, troubles: &[Trouble], runs: &mut Vec<RunReport>) -> Looked {
        let (mut faults, mut met) = (Vec::new(), 0);
        for call in self.operations() {
            let exchanges = self.before(call).await?.1.http;
            for (at, exchange) in exchanges.iter().enumerate() {
                for trouble in troubles {
                    let (asked, fault) = self
                        .meet_one(call, at, exchange, &exchanges[..at], trouble, runs)
                        .await?;
                    met += usize::from(asked);
                    faults.extend(fault);
                }
            }
        }
        match met {
            0 => Ok(Verdict::NotOffered("the plugin sends no requests".into())),
            _ => Ok(verdict(faults)),
        }
    }

    async fn meet_one(
        &self,
        call: Call,
        at: usize,
        exchange: &Exchange,
        earlier: &[Exchange],
        trouble: &Trouble,
        runs: &mut Vec<RunReport>,
    ) -> Result<(bool, Option<String>), String> {
        let (mut player, step) = self.before(call).await?;
        let answer = trouble.answer.clone();
        let played = player.call(&step, Some(Fault { at, answer })).await?;
        runs.append(&mut player.runs);
        if !played.asked.contains(&at) {
            return Ok((false, None));
        }
        let outcome = &played.run.outcome;
        // After a change that was answered, "did not happen" would not be true of the whole operation.
        let allowed: &[&str] = match (
            exchange.request.changes(),
            earlier.iter().any(|e| e.request.changes()),
        ) {
            (true, false) => trouble.change,
            (true, true) if trouble.change == ["unavailable"] => OPEN,
            (true, true) => trouble.change,
            (false, _) => trouble.question,
        };
        let word = outcome.word();
        if allowed.contains(&word.as_str()) && played.run.failure.is_none() {
            return Ok((true, None));
        }
        let worse = if is_no(outcome) {
            ", a final no that nobody said"
        } else {
            ""
        };
        let (call, url) = (call.as_str(), &exchange.request.url);
        Ok((
            true,
            Some(format!(
                "{call}: after {} ({} {url}) it answered {}{worse}; it must be {}",
                trouble.name,
                exchange.request.method,
                outcome.words(),
                allowed.join(" or ")
            )),
        ))
    }
}

fn response(status: u16, body: &str) -> HttpAnswer {
    HttpAnswer::Response(HttpResponse {
        status,
        headers: vec![("content-type".into(), Text::from("text/html"))],
        body: Text::from(body),
    })
}
