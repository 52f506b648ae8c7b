//! What the customer is shown, as JSON for the shop's page.

use crate::iban;
use oms_plugin_sdk::{Money, PaymentError};
use serde_json::{Map, Value, json};

/// The settings of the account.
pub(crate) struct Settings {
    kind: Kind,
    reference: String,
    instructions: Option<String>,
}

enum Kind {
    BankTransfer(BankAccount),
    CashOnDelivery,
}

struct BankAccount {
    holder: String,
    iban: Option<String>,
    number: Option<String>,
    bic: Option<String>,
    bank: Option<String>,
}

impl Settings {
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, PaymentError> {
        let text = |name: &str| {
            get(name)
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        let kind = match text("kind").as_deref() {
            None | Some("bank-transfer") => Kind::BankTransfer(BankAccount::read(text)?),
            Some("cash-on-delivery") => Kind::CashOnDelivery,
            Some(other) => {
                return Err(PaymentError::misconfigured(format!(
                    "`kind` is {other:?}, but must be bank-transfer or cash-on-delivery"
                )));
            }
        };
        Ok(Self {
            kind,
            reference: text("reference").unwrap_or_else(|| "{order-number}".into()),
            instructions: text("instructions"),
        })
    }

    pub(crate) fn present(&self, order_number: &str, amount: &Money) -> Value {
        let fill = |text: &str| {
            text.replace("{order-number}", order_number)
                .replace("{amount}", &amount.decimal())
                .replace("{currency}", &amount.currency)
        };
        let mut shown = Map::new();
        shown.insert("amount".into(), json!(amount.decimal()));
        shown.insert("currency".into(), json!(amount.currency));
        match &self.kind {
            Kind::CashOnDelivery => {
                shown.insert("kind".into(), json!("cash_on_delivery"));
            }
            Kind::BankTransfer(account) => {
                let reference = fill(&self.reference);
                shown.insert("kind".into(), json!("bank_transfer"));
                account.describe(&mut shown);
                if let Some(code) = account.epc_qr(amount, &reference) {
                    shown.insert("epc_qr".into(), json!(code));
                }
                shown.insert("reference".into(), json!(reference));
            }
        }
        if let Some(instructions) = &self.instructions {
            shown.insert("instructions".into(), json!(fill(instructions)));
        }
        Value::Object(shown)
    }
}

impl BankAccount {
    fn read(text: impl Fn(&str) -> Option<String>) -> Result<Self, PaymentError> {
        let missing = |what: &str| PaymentError::misconfigured(format!("the account has no setting {what}"));
        let iban = match text("iban") {
            Some(given) => Some(iban::parse(&given).ok_or_else(|| {
                PaymentError::misconfigured("`iban` is no IBAN: its check digits do not fit")
            })?),
            None => None,
        };
        let number = text("account-number");
        if iban.is_none() && number.is_none() {
            return Err(missing("`iban` or `account-number`"));
        }
        Ok(Self {
            holder: text("account-holder").ok_or_else(|| missing("`account-holder`"))?,
            iban,
            number,
            bic: text("bic").map(|bic| bic.to_ascii_uppercase()),
            bank: text("bank-name"),
        })
    }

    fn describe(&self, shown: &mut Map<String, Value>) {
        shown.insert("account_holder".into(), json!(self.holder));
        for (name, value) in [
            ("iban", &self.iban),
            ("account_number", &self.number),
            ("bic", &self.bic),
            ("bank_name", &self.bank),
        ] {
            if let Some(value) = value {
                shown.insert(name.into(), json!(value));
            }
        }
    }

    /// The text of the QR code that banking apps in the SEPA countries read (EPC069-12, version 2): for euros, from
    /// 0.01 to 999999999.99, with at most 70 characters of name and 140 of reference.
    fn epc_qr(&self, amount: &Money, reference: &str) -> Option<String> {
        let iban = self.iban.as_ref()?;
        let fits = amount.currency == "EUR"
            && (1..=99_999_999_999).contains(&amount.minor)
            && self.holder.chars().count() <= 70
            && reference.chars().count() <= 140
            && ![&self.holder, reference]
                .iter()
                .any(|text| text.chars().any(char::is_control));
        let bic = self.bic.as_deref().unwrap_or_default();
        let amount = amount.decimal();
        fits.then(|| {
            format!(
                "BCD\n002\n1\nSCT\n{bic}\n{}\n{iban}\nEUR{amount}\n\n\n{reference}",
                self.holder
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BANK: [(&str, &str); 4] = [
        ("account-holder", "Shop Ltd"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("bic", "cobadeffxxx"),
        ("instructions", "Send {amount} {currency} for {order-number}."),
    ];

    fn settings(given: &[(&str, &str)]) -> Result<Settings, PaymentError> {
        Settings::read(|name| {
            given
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn money(minor: i64, currency: &str, exponent: u8) -> Money {
        Money {
            minor,
            currency: currency.into(),
            exponent,
        }
    }

    #[test]
    fn a_bank_transfer_shows_the_account() {
        let shown = settings(&BANK).unwrap().present("1001", &money(1_999, "EUR", 2));
        assert_eq!(
            shown,
            json!({
                "kind": "bank_transfer", "amount": "19.99", "currency": "EUR", "reference": "1001",
                "account_holder": "Shop Ltd", "iban": "DE89370400440532013000", "bic": "COBADEFFXXX",
                "instructions": "Send 19.99 EUR for 1001.",
                "epc_qr": "BCD\n002\n1\nSCT\nCOBADEFFXXX\nShop Ltd\nDE89370400440532013000\nEUR19.99\n\n\n1001",
            })
        );
        let yen = settings(&BANK).unwrap().present("1001", &money(1_999, "JPY", 0));
        assert_eq!((&yen["amount"], yen.get("epc_qr")), (&json!("1999"), None));
    }

    #[test]
    fn cash_needs_no_account() {
        let shown = settings(&[("kind", "cash-on-delivery")])
            .unwrap()
            .present("7", &money(500, "EUR", 2));
        assert_eq!(
            shown,
            json!({ "kind": "cash_on_delivery", "amount": "5.00", "currency": "EUR" })
        );
    }

    #[test]
    fn settings_that_would_lose_money_are_refused() {
        for given in [
            &[("kind", "barter")][..],
            &[("account-holder", "Shop Ltd")],
            &[("iban", "DE89 3704 0044 0532 0130 00")],
            &[
                ("account-holder", "Shop Ltd"),
                ("iban", "DE89 3704 0044 0532 0130 01"),
            ],
            &[("account-holder", " "), ("account-number", "1")],
        ] {
            assert!(
                matches!(settings(given), Err(PaymentError::Misconfigured(_))),
                "{given:?}"
            );
        }
        assert!(settings(&[("account-holder", "Shop Ltd"), ("account-number", "1")]).is_ok());
    }
}
