//! Garbage: whatever comes over the wire, a plugin answers. The same garbage in every run.

use super::{Bench, Looked, verdict};
use crate::payments::Delivery;
use crate::plugins::conformance::fixtures::Fault;
use crate::plugins::conformance::player::Player;
use crate::plugins::conformance::report::{RunReport, Verdict};
use crate::plugins::tape::{HttpAnswer, HttpResponse, Text};

/// Deliveries, half of them signed after they were spoilt, so that they get past the signature.
const DELIVERIES: usize = 300;
/// Answers to each request of each operation.
const ANSWERS: usize = 32;
/// How deep garbage is nested: deeper than the stack of a language bears that does not count.
const DEPTH: usize = 10_000;
/// Faults that are told; the rest is alike.
const TOLD: usize = 5;

impl Bench<'_> {
    pub(super) async fn garbage_webhooks(&self, player: &mut Player<'_>) -> Result<Vec<String>, String> {
        let mut chance = Chance(0x6f6d_732d_6b69_7401);
        let mut faults = Vec::new();
        let draft = player.draft()?;
        let genuine = draft.sign()?;
        for n in 0..DELIVERIES {
            let body = chance.spoil(&genuine.body);
            let delivery = match n % 2 {
                0 => draft.sign_bytes(&body)?,
                _ => Delivery {
                    body: if chance.below(2) == 0 {
                        body
                    } else {
                        genuine.body.clone()
                    },
                    headers: chance.spoil_headers(&genuine.headers),
                    query: chance.text(&genuine.query),
                    ..genuine.clone()
                },
            };
            let shown = String::from_utf8_lossy(&delivery.body)
                .chars()
                .take(200)
                .collect::<String>();
            let run = player.deliver(delivery).await?;
            faults.extend(
                run.failure
                    .map(|why| format!("delivery {n}: {why}; its body: {shown:?}")),
            );
        }
        summarise(&mut player.runs);
        faults.truncate(TOLD);
        Ok(faults)
    }

    pub(super) async fn garbage_answers(&self, runs: &mut Vec<RunReport>) -> Looked {
        let mut chance = Chance(0x6f6d_732d_6b69_7402);
        let (mut faults, mut sent) = (Vec::new(), 0);
        for call in self.operations() {
            let (player, step) = self.before(call).await?;
            let words = player.words(&step, "kit-garbage", player.books.total)?;
            for (at, exchange) in step.http.iter().enumerate() {
                let Some(response) = &exchange.response else {
                    continue;
                };
                let body = self.fixtures.text(&response.body, response.body_file.as_ref())?;
                let body = words.render(&body)?;
                let (mut player, step) = self.before(call).await?;
                let books = player.books.clone();
                for n in 0..ANSWERS {
                    player.books = books.clone();
                    let answer = HttpAnswer::Response(HttpResponse {
                        status: [response.status, 200, 299, 400, 402, 599][chance.below(6)],
                        headers: Vec::new(),
                        body: Text(chance.spoil(body.as_bytes())),
                    });
                    let played = player.call(&step, Some(Fault { at, answer })).await?;
                    sent += 1;
                    let told = |why| format!("{}, request {}, answer {n}: {why}", call.as_str(), at + 1);
                    faults.extend(played.run.failure.map(told));
                }
                summarise(&mut player.runs);
                runs.append(&mut player.runs);
            }
        }
        faults.truncate(TOLD);
        match sent {
            0 => Ok(Verdict::NotOffered("the plugin sends no requests".into())),
            _ => Ok(verdict(faults)),
        }
    }
}

/// One line for many calls of a kind: the slowest and the largest.
fn summarise(runs: &mut Vec<RunReport>) {
    let Some(first) = runs.first().cloned() else {
        return;
    };
    let summary = RunReport {
        outcome: format!("{} calls", runs.len()),
        memory: runs.iter().map(|run| run.memory).max().unwrap_or(0),
        micros: runs.iter().map(|run| run.micros).max().unwrap_or(0),
        calls: Vec::new(),
        function: runs.last().map_or(first.function, |run| run.function.clone()),
    };
    *runs = vec![summary];
}

/// A small generator, always with the same numbers: what fails here fails again.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `end` - 1.
    fn below(&mut self, end: usize) -> usize {
        // The remainder is a number below `end`.
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most))
            .map(|_| self.next().to_le_bytes()[0])
            .collect()
    }

    fn text(&mut self, text: &str) -> String {
        String::from_utf8_lossy(&self.spoil(text.as_bytes())).into_owned()
    }

    fn spoil(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut spoilt = bytes.to_vec();
        let at = self.below(spoilt.len());
        match self.below(12) {
            0 => spoilt.clear(),
            1 => spoilt.truncate(at),
            2 => spoilt = self.bytes(512),
            3 => spoilt = b"[".repeat(1 + self.below(DEPTH)),
            4 => spoilt = b"{\"a\":".repeat(1 + self.below(DEPTH)),
            5 => spoilt = [b"\"".as_slice(), &b"A".repeat(64 << 10), b"\""].concat(),
            6 => {
                return replace_number(
                    &spoilt,
                    ["-1", "1e999", "99999999999999999999", "null", "0.1", "\"x\""][self.below(6)],
                );
            }
            7 => return replace_word(&spoilt, self.below(64)),
            8 => spoilt.splice(at..at, self.bytes(64)).for_each(drop),
            9 => spoilt = [spoilt.clone(), spoilt].concat(),
            _ => {
                for _ in 0..=self.below(8) {
                    let at = self.below(spoilt.len());
                    if let Some(byte) = spoilt.get_mut(at) {
                        *byte = self.next().to_le_bytes()[0];
                    }
                }
            }
        }
        spoilt
    }

    fn spoil_headers(&mut self, headers: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
        let mut spoilt = headers.to_vec();
        let at = self.below(spoilt.len());
        match self.below(6) {
            0 => spoilt.clear(),
            1 if !spoilt.is_empty() => drop(spoilt.remove(at)),
            2 if !spoilt.is_empty() => spoilt.push(spoilt[at].clone()),
            3 => spoilt.push(("x-long".into(), b"A".repeat(16 << 10))),
            _ => {
                if let Some((_, value)) = spoilt.get_mut(at) {
                    *value = self.spoil(value);
                }
            }
        }
        spoilt
    }
}

/// Puts something else in the place of the first number.
fn replace_number(bytes: &[u8], by: &str) -> Vec<u8> {
    let Some(begin) = bytes.iter().position(u8::is_ascii_digit) else {
        return by.as_bytes().to_vec();
    };
    let length = bytes[begin..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    [&bytes[..begin], by.as_bytes(), &bytes[begin + length..]].concat()
}

/// Renames what stands in the n-th quotes: a member goes missing, or a status becomes one that nobody knows.
fn replace_word(bytes: &[u8], n: usize) -> Vec<u8> {
    let quotes: Vec<_> = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'"')
        .map(|(at, _)| at)
        .collect();
    let pairs = quotes.len() / 2;
    match pairs {
        0 => bytes.to_vec(),
        _ => {
            let pair = n % pairs * 2;
            [
                &bytes[..=quotes[pair]],
                b"kit-unknown",
                &bytes[quotes[pair + 1]..],
            ]
            .concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_garbage_every_time() {
        let garbage = || {
            let mut chance = Chance(7);
            (0..200)
                .map(|_| chance.spoil(br#"{"id":"a","n":12}"#))
                .collect::<Vec<_>>()
        };
        let first = garbage();
        assert_eq!(first, garbage());
        let different = first.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(different > 60, "{different}");
    }

    #[test]
    fn words_and_numbers_are_replaced() {
        assert_eq!(
            replace_number(b"{\"a\":123,\"b\":4}", "null"),
            b"{\"a\":null,\"b\":4}"
        );
        assert_eq!(replace_word(br#"{"a":"b"}"#, 1), br#"{"a":"kit-unknown"}"#);
        assert_eq!(replace_word(b"{}", 1), b"{}");
    }
}
