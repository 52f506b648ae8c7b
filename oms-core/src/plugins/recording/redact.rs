//! What is recorded without secrets and without what belongs to customers. The same is done to what a replay brings forth,
//! so that both can be compared.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::asked::Asked;
use crate::payments::{Account, Customer, GatewayAddress};
use crate::plugins::tape::{Exchange, HostCall, HttpAnswer, HttpRequest, Text};

const GONE: &str = "***";

/// The most that is kept of one body.
const MAX_BODY: usize = 32 << 10;

/// Headers that carry credentials, whatever their value.
const HEADERS: [&str; 6] = [
    "authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "proxy-authorization",
];

/// Parts of member names whose values are nobody's business.
const MEMBERS: [&str; 24] = [
    "secret",
    "password",
    "token",
    "card",
    "cvc",
    "cvv",
    "iban",
    "account_number",
    "accountnumber",
    "pan",
    "email",
    "phone",
    "first_name",
    "last_name",
    "firstname",
    "lastname",
    "holder",
    "street",
    "line1",
    "line2",
    "postal",
    "birth",
    "ip_address",
    "fingerprint",
];

/// Takes known texts out, and what stands under telling names.
pub(in crate::plugins) struct Redactor {
    /// The longest first: one may be a part of another.
    known: Vec<String>,
}

impl Redactor {
    pub(in crate::plugins) fn new(account: &Account, asked: &Asked) -> Self {
        let mut known = Vec::new();
        for secret in account.secrets.values() {
            let text = secret.reveal().trim();
            known.extend([
                text.to_owned(),
                BASE64.encode(text),
                BASE64.encode(format!("{text}:")),
            ]);
            known.extend(text.lines().map(str::to_owned));
            known.push(url::form_urlencoded::byte_serialize(text.as_bytes()).collect());
        }
        if let Some(start) = &asked.start {
            // A shop that is tried at home has its customer's address in its own settings: those are no secret.
            let is_setting = |text: &str| {
                let origins = account.grants.iter().map(|grant| &grant.origin);
                account
                    .config
                    .values()
                    .chain(origins)
                    .any(|setting| setting.contains(text))
            };
            known.extend(
                personal(&start.customer)
                    .filter(|text| !is_setting(text))
                    .cloned(),
            );
            known.extend(start.instrument.clone());
            known.extend(start.instrument_data.iter().map(|(_, value)| value.clone()));
        }
        // Shorter ones stand in everything by chance.
        known.retain(|text| text.len() >= 4);
        known.sort_by_key(|text| std::cmp::Reverse(text.len()));
        known.dedup();
        Self { known }
    }

    pub(in crate::plugins) fn text(&self, text: &str) -> String {
        let clean = |text: String, known: &String| text.replace(known.as_str(), GONE);
        self.known.iter().fold(text.replace('\0', "\u{fffd}"), clean)
    }

    pub(in crate::plugins) fn json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(values) => values.iter().map(|value| self.json(value)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(name, value)| match value {
                    Value::String(_) | Value::Number(_) if is_private(name) => (name.clone(), GONE.into()),
                    _ => (self.text(name), self.json(value)),
                })
                .collect(),
            plain => plain.clone(),
        }
    }

    pub(super) fn asked(&self, mut asked: Asked) -> Asked {
        let clean = |text: &mut Option<String>| {
            if let Some(text) = text {
                *text = self.text(text);
            }
        };
        clean(&mut asked.state);
        clean(&mut asked.reason);
        for (name, value) in &mut asked.params {
            *value = if is_private(name) {
                GONE.into()
            } else {
                self.text(value)
            };
        }
        asked.body = asked.body.map(|body| self.body(&body));
        if let Some(start) = &mut asked.start {
            start.instrument = start.instrument.as_ref().map(|_| GONE.into());
            start
                .instrument_data
                .iter_mut()
                .for_each(|(_, value)| *value = GONE.into());
            hide(&mut start.customer);
            clean(&mut start.description);
            for (_, value) in &mut start.metadata {
                *value = self.text(value);
            }
        }
        asked
    }

    pub(in crate::plugins) fn calls(&self, calls: &[HostCall]) -> Vec<HostCall> {
        calls.iter().map(|call| self.call(call)).collect()
    }

    fn call(&self, call: &HostCall) -> HostCall {
        match call {
            HostCall::Http(exchange) => HostCall::Http(Box::new(self.exchange(exchange))),
            HostCall::Log { level, message } => HostCall::Log {
                level: level.clone(),
                message: self.text(message),
            },
            HostCall::CacheGet { key, found } => HostCall::CacheGet {
                key: self.text(key),
                found: *found,
            },
            HostCall::CacheSet { key, bytes, seconds } => HostCall::CacheSet {
                key: self.text(key),
                bytes: *bytes,
                seconds: *seconds,
            },
            plain => plain.clone(),
        }
    }

    fn exchange(&self, exchange: &Exchange) -> Exchange {
        let mut answer = exchange.answer.clone();
        if let HttpAnswer::Response(response) = &mut answer {
            response.headers = self.headers(&response.headers);
            response.body = self.body(&response.body);
        }
        Exchange {
            request: self.request(&exchange.request),
            answer,
            micros: exchange.micros,
        }
    }

    pub(in crate::plugins) fn request(&self, request: &HttpRequest) -> HttpRequest {
        HttpRequest {
            method: request.method.clone(),
            url: self.text(&request.url),
            headers: self.headers(&request.headers),
            body: self.body(&request.body),
        }
    }

    fn headers(&self, headers: &[(String, Text)]) -> Vec<(String, Text)> {
        let clean =
            |(name, value): &(String, Text)| match HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                true => (name.clone(), Text::from(GONE)),
                false => (name.clone(), Text(self.text(&value.lossy()).into_bytes())),
            };
        headers.iter().map(clean).collect()
    }

    /// JSON and forms by the names of their members, everything by what is known.
    fn body(&self, body: &Text) -> Text {
        if body.0.len() > MAX_BODY {
            return Text(format!("({} bytes, too many to be kept)", body.0.len()).into_bytes());
        }
        let Ok(text) = std::str::from_utf8(&body.0) else {
            return Text(format!("({} bytes that are no text)", body.0.len()).into_bytes());
        };
        if let Ok(value @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str::<Value>(text) {
            return Text(self.json(&value).to_string().into_bytes());
        }
        let looks_like_form = text.contains('=') && !text.contains(['<', ' ', '\n', '{']);
        if !looks_like_form {
            return Text(self.text(text).into_bytes());
        }
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            let value = if is_private(&name) {
                GONE.to_owned()
            } else {
                self.text(&value)
            };
            form.append_pair(&name, &value);
        }
        Text(form.finish().into_bytes())
    }
}

fn is_private(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    MEMBERS.iter().any(|member| name.contains(member))
}

fn personal(customer: &Customer) -> impl Iterator<Item = &String> {
    let addresses = [&customer.billing, &customer.shipping].into_iter().flatten();
    [&customer.email, &customer.phone, &customer.ip]
        .into_iter()
        .flatten()
        .chain(addresses.flat_map(|a| [&a.name, &a.line1, &a.line2].into_iter().flatten()))
}

fn hide(customer: &mut Customer) {
    let gone = |text: &mut Option<String>| {
        if text.is_some() {
            *text = Some(GONE.into());
        }
    };
    let Customer {
        id: _,
        email,
        phone,
        ip,
        billing,
        shipping,
    } = customer;
    [email, phone, ip].into_iter().for_each(gone);
    for address in [billing, shipping].into_iter().flatten() {
        // The country decides how some gateways are asked, and is nobody's alone.
        let GatewayAddress {
            name,
            line1,
            line2,
            city,
            region,
            postal_code,
            country: _,
        } = address;
        [name, line1, line2, city, region, postal_code]
            .into_iter()
            .for_each(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::Secret;

    fn redactor() -> Redactor {
        let mut account = Account::new("shop", "acme");
        account
            .secrets
            .insert("api-key".into(), Secret::new("sk_live_123+4"));
        Redactor::new(&account, &Asked::default())
    }

    #[test]
    fn no_form_of_a_secret_stays() {
        let redactor = redactor();
        for text in [
            "key sk_live_123+4!",
            "c2tfbGl2ZV8xMjMrNA==",
            "c2tfbGl2ZV8xMjMrNDo=",
            "a=sk_live_123%2B4",
        ] {
            let clean = redactor.text(text);
            assert!(clean.contains(GONE), "{clean}");
        }
        let request = HttpRequest {
            method: "POST".into(),
            url: "https://a.test/?key=sk_live_123%2B4".into(),
            headers: vec![("Authorization".into(), Text::from("Basic eDp5"))],
            body: Text::from("card[number]=4242424242424242&amount=100&receipt_email=a%40b.c"),
        };
        let clean = redactor.request(&request);
        assert_eq!(clean.url, "https://a.test/?key=***");
        assert_eq!(clean.headers[0].1, Text::from("***"));
        assert_eq!(
            clean.body.lossy(),
            "card%5Bnumber%5D=***&amount=100&receipt_email=***"
        );
    }

    #[test]
    fn members_with_telling_names_go() {
        let body = Text::from(r#"{"id":"p1","client_secret":"x","list":[{"email":"a@b.c","amount":5}]}"#);
        let clean = redactor().body(&body);
        assert_eq!(
            clean.lossy(),
            r#"{"client_secret":"***","id":"p1","list":[{"amount":5,"email":"***"}]}"#
        );
    }

    #[test]
    fn a_large_body_is_named_not_kept() {
        let clean = redactor().body(&Text(vec![b'a'; MAX_BODY + 1]));
        assert!(clean.lossy().contains("too many to be kept"));
    }
}
