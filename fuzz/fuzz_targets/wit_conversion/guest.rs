//! A guest that answers whatever the input makes of it: what a good plugin would say, or anything.

use std::fmt::Debug;

use arbitrary::{Result, Unstructured};
use oms_core::plugins::fuzzing::{descriptor as wd, gateway as wg, types as wt, webhooks as ww};

/// What it was told and must not repeat.
pub(crate) const SECRET: &str = "s3cret";

const PAYMENT: &str = "pay_01h455vb4pex5vsknk084sn02q";
const REFUND: &str = "ref_01h455vb4pex5vsknk084sn02q";
const MOST: i64 = (1 << 53) - 1;
const YEAR_10000_MS: u64 = 253_402_300_800_000;

pub(crate) struct Guest<'a> {
    bytes: Unstructured<'a>,
    /// Whether it says only what the contract allows.
    good: bool,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(bytes: Unstructured<'a>) -> Self {
        let mut guest = Self { bytes, good: false };
        guest.good = guest.number(4) == 1;
        guest
    }

    /// A refusal is for what is wrong: a good guest is never refused.
    pub(crate) fn was_odd(&self, why: &str, said: &impl Debug) {
        assert!(!why.is_empty());
        assert!(!self.good, "refused, {why}: {said:?}");
    }

    pub(crate) fn number(&mut self, below: u8) -> u8 {
        self.bytes.arbitrary::<u8>().unwrap_or(0) % below
    }

    pub(crate) fn choose<T: Copy>(&mut self, all: &[T]) -> Result<T> {
        let at = usize::from(self.bytes.arbitrary::<u8>()?) % all.len();
        Ok(all[at])
    }

    pub(crate) fn yes(&mut self) -> Result<bool> {
        Ok(self.bytes.arbitrary::<u8>()? % 2 == 1)
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>> {
        self.bytes.arbitrary()
    }

    pub(crate) fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match self.yes()? {
            true => make(self).map(Some),
            false => Ok(None),
        }
    }

    pub(crate) fn several<T>(
        &mut self,
        most: usize,
        mut make: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let many = usize::from(self.choose(&[0_u16, 1, 2, 3, 64, 65, 100, 101, 500, 501])?);
        let many = if self.good { many.min(most) } else { many };
        (0..many).map(|_| make(self)).collect()
    }

    /// A text that names something.
    pub(crate) fn name(&mut self) -> Result<String> {
        if self.good {
            let known = ["pi_1", "evt-1", PAYMENT, REFUND, "ein Name mit Ümlaut"];
            return Ok(self.choose(&known)?.to_owned());
        }
        self.text()
    }

    /// Any text, often one that is nearly too long.
    pub(crate) fn text(&mut self) -> Result<String> {
        if self.good {
            return Ok(self
                .choose(&["", "a word", "two\nlines", "{\"a\":1}"])?
                .to_owned());
        }
        let size = |guest: &mut Self| {
            let limit = guest.choose(&[100_usize, 255, 1_000, 4 << 10, 8 << 10, 16 << 10, 32 << 10])?;
            Ok::<_, arbitrary::Error>(limit + usize::from(guest.yes()?))
        };
        Ok(match self.number(10) {
            0 => String::new(),
            1 => self
                .choose(&[PAYMENT, REFUND, "pay_", "pay_x", "PAY_01H455VB4PEX5VSKNK084SN02Q"])?
                .to_owned(),
            2 => self
                .choose(&["\0", "a\0b", "a\nb", "\u{7f}", "\u{85}", "\u{202e}", "\u{feff}"])?
                .to_owned(),
            3 => "x".repeat(size(self)?),
            4 => "€".repeat(size(self)? / 3),
            5 => format!("{}\0", "y".repeat(size(self)? - 1)),
            6 => format!("{SECRET}{}{SECRET}", self.bytes.arbitrary::<char>()?),
            7 => format!("{}{SECRET}", "z".repeat(size(self)?)),
            _ => self.bytes.arbitrary()?,
        })
    }

    fn url(&mut self) -> Result<String> {
        let good = ["https://bank.test/pay?x=1", "http://127.0.0.1:8000/pay/bp_1"];
        if self.good || self.yes()? {
            return Ok(self.choose(&good)?.to_owned());
        }
        let odd = [
            "javascript:alert(1)",
            " javascript:alert(1)",
            "JAVASCRIPT:alert(1)",
            "java\nscript:alert(1)",
            "data:text/html,x",
            "https:",
            "https://",
            "//bank.test",
            "https://bank.test/\n",
            "\thttps://bank.test",
            "https://bank.test/\0",
        ];
        match self.number(3) {
            0 => self.text(),
            1 => Ok(format!("https://bank.test/{}", self.text()?)),
            _ => Ok(self.choose(&odd)?.to_owned()),
        }
    }

    pub(crate) fn currency(&mut self) -> Result<String> {
        if self.good {
            return Ok(self.choose(&["EUR", "eur"])?.to_owned());
        }
        let known = [
            "EUR", "eur", "Jpy", "KWD", "XXX", "XAU", "EURO", "E\0R", "€", "", "ſek", "ı",
        ];
        match self.number(3) {
            0 => self.text(),
            _ => Ok(self.choose(&known)?.to_owned()),
        }
    }

    fn amount(&mut self) -> Result<i64> {
        if self.good {
            return self.choose(&[0, 1, 1_999, MOST]);
        }
        match self.number(2) {
            0 => self.choose(&[0, -1, 1, MOST, MOST + 1, i64::MAX, i64::MIN]),
            _ => self.bytes.arbitrary(),
        }
    }

    fn time(&mut self) -> Result<u64> {
        if self.good {
            return self.choose(&[0, 1_767_323_045_678, YEAR_10000_MS - 1]);
        }
        match self.number(2) {
            0 => self.choose(&[0, YEAR_10000_MS - 1, YEAR_10000_MS, i64::MAX as u64, u64::MAX]),
            _ => self.bytes.arbitrary(),
        }
    }

    pub(crate) fn pairs(&mut self) -> Result<Vec<(String, String)>> {
        self.several(64, |guest| Ok((guest.name()?, guest.text()?)))
    }

    pub(crate) fn names(&mut self) -> Result<Vec<String>> {
        self.several(100, Self::name)
    }

    fn money(&mut self) -> Result<wt::Money> {
        Ok(wt::Money {
            minor: self.amount()?,
            currency: self.currency()?,
            exponent: self.bytes.arbitrary()?,
        })
    }

    fn totals(&mut self) -> Result<wt::Totals> {
        Ok(wt::Totals {
            currency: self.maybe(Self::currency)?,
            authorized: self.maybe(Self::amount)?,
            captured: self.maybe(Self::amount)?,
            refunded: self.maybe(Self::amount)?,
            canceled: self.maybe(Self::amount)?,
        })
    }

    fn status(&mut self) -> Result<wt::PaymentStatus> {
        use wt::PaymentStatus as S;
        let all = [
            S::Pending,
            S::ActionRequired,
            S::Authorized,
            S::PartiallyCaptured,
            S::Captured,
            S::Canceled,
            S::Failed,
        ];
        self.choose(&all)
    }

    fn refund_status(&mut self) -> Result<wt::RefundStatus> {
        use wt::RefundStatus as S;
        self.choose(&[S::Pending, S::Succeeded, S::Failed, S::Reversed])
    }

    fn next_action(&mut self) -> Result<wt::NextAction> {
        Ok(match self.number(5) {
            0 => wt::NextAction::Redirect(wt::Redirect {
                url: self.url()?,
                method: self.choose(&[wt::RedirectMethod::Get, wt::RedirectMethod::Post])?,
                form_fields: self.pairs()?,
            }),
            1 => wt::NextAction::ClientSdk(self.text()?),
            2 => wt::NextAction::Present(self.text()?),
            3 => wt::NextAction::Wait(self.bytes.arbitrary()?),
            _ => wt::NextAction::Other(self.text()?),
        })
    }

    pub(crate) fn payment_result(&mut self) -> Result<wg::PaymentResult> {
        Ok(wg::PaymentResult {
            status: self.status()?,
            reference: self.maybe(Self::name)?,
            operation_reference: self.maybe(Self::name)?,
            totals: self.totals()?,
            next_action: self.maybe(Self::next_action)?,
            expires_at_ms: self.maybe(Self::time)?,
            state: self.maybe(Self::text)?,
            method: self.pairs()?,
            raw: self.maybe(Self::text)?,
        })
    }

    pub(crate) fn refund_result(&mut self) -> Result<wg::RefundResult> {
        Ok(wg::RefundResult {
            refund_id: self.maybe(Self::name)?,
            status: self.refund_status()?,
            reference: self.maybe(Self::name)?,
            amount: self.maybe(Self::money)?,
            raw: self.maybe(Self::text)?,
        })
    }

    pub(crate) fn snapshot(&mut self) -> Result<wg::Snapshot> {
        Ok(wg::Snapshot {
            payment: self.payment_result()?,
            refunds: self.several(500, Self::refund_result)?,
        })
    }

    fn detail(&mut self) -> Result<wt::Detail> {
        Ok(wt::Detail {
            code: self.text()?,
            message: self.text()?,
            http_status: self.maybe(|guest| guest.bytes.arbitrary())?,
            gateway_code: self.maybe(Self::text)?,
        })
    }

    pub(crate) fn payment_error(&mut self) -> Result<wt::PaymentError> {
        use wt::PaymentError as E;
        Ok(match self.number(11) {
            0 => E::Declined(wt::Decline {
                code: self.text()?,
                message: self.text()?,
                gateway_code: self.maybe(Self::text)?,
                customer_can_retry: self.yes()?,
            }),
            1 => E::InvalidRequest(self.detail()?),
            2 => E::InvalidState(self.detail()?),
            3 => E::NotFound(self.text()?),
            4 => E::Unsupported(self.text()?),
            5 => E::NotAuthenticated(self.detail()?),
            6 => E::RateLimited(self.maybe(|guest| guest.bytes.arbitrary())?),
            7 => E::Unavailable(self.detail()?),
            8 => E::Indeterminate(self.detail()?),
            9 => E::Misconfigured(self.text()?),
            _ => E::Internal(self.text()?),
        })
    }

    pub(crate) fn webhook_error(&mut self) -> Result<ww::WebhookError> {
        use ww::WebhookError as E;
        Ok(match self.number(6) {
            0 => E::MissingSignature(self.text()?),
            1 => E::BadSignature,
            2 => E::Stale(self.time()?),
            3 => E::Malformed(self.text()?),
            4 => E::Misconfigured(self.text()?),
            _ => E::Unavailable(self.text()?),
        })
    }

    fn change(&mut self) -> Result<ww::Change> {
        Ok(match self.number(5) {
            0 => ww::Change::Payment(ww::PaymentEvent {
                status: self.maybe(Self::status)?,
                totals: self.totals()?,
                decline_code: self.maybe(Self::name)?,
                operation_reference: self.maybe(Self::name)?,
            }),
            1 => ww::Change::Refund(ww::RefundEvent {
                refund_id: self.maybe(Self::name)?,
                reference: self.name()?,
                status: self.refund_status()?,
                amount: self.maybe(Self::money)?,
            }),
            2 => ww::Change::Dispute(ww::DisputeEvent {
                reference: self.name()?,
                opened: self.yes()?,
                won: self.maybe(Self::yes)?,
                amount: self.maybe(Self::money)?,
                reason: self.maybe(Self::text)?,
            }),
            3 => ww::Change::NeedsSync,
            _ => ww::Change::Irrelevant,
        })
    }

    pub(crate) fn events(&mut self) -> Result<Vec<ww::Event>> {
        self.several(100, |guest| {
            Ok(ww::Event {
                id: guest.name()?,
                kind: guest.name()?,
                occurred_at_ms: guest.maybe(Self::time)?,
                reference: guest.maybe(Self::name)?,
                payment_id: guest.maybe(Self::name)?,
                change: guest.change()?,
            })
        })
    }

    pub(crate) fn reply(&mut self) -> Result<ww::Reply> {
        let types = [
            "text/plain",
            "application/json; charset=utf-8",
            "application/xml",
            "text/html",
            "TEXT/PLAIN",
            " text/plain",
            "text/plain\r\nset-cookie: a=b",
            "text/plain; text/html",
        ];
        if self.good {
            return Ok(ww::Reply {
                status: self.choose(&[200, 202, 204])?,
                content_type: self.maybe(|guest| Ok(guest.choose(&types[..3])?.to_owned()))?,
                body: self.bytes()?,
            });
        }
        Ok(ww::Reply {
            status: self.choose(&[200, 204, 299, 300, 302, 199, 500, 0, u16::MAX])?,
            content_type: match self.number(3) {
                0 => None,
                1 => Some(self.text()?),
                _ => Some(self.choose(&types)?.to_owned()),
            },
            body: match self.yes()? {
                true => vec![b'x'; (16 << 10) + usize::from(self.yes()?)],
                false => self.bytes()?,
            },
        })
    }

    pub(crate) fn features(&mut self) -> Result<wd::Feature> {
        use wd::Feature as F;
        let all = [
            F::MANUAL_CAPTURE,
            F::PARTIAL_CAPTURE,
            F::MULTIPLE_CAPTURE,
            F::CANCEL,
            F::REFUND,
            F::PARTIAL_REFUND,
            F::SYNC,
            F::COMPLETE,
            F::WEBHOOKS,
            F::CLIENT_TOKENS,
        ];
        let mut flags = F::default();
        for flag in all {
            if self.yes()? {
                flags |= flag;
            }
        }
        Ok(flags)
    }
}
