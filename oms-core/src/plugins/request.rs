//! What is asked of a guest, in the contract's types.

use super::bindings::{gateway as wg, types as wt, webhooks as ww};
use crate::money::Money;
use crate::payments::{
    Call, CancelRequest, CaptureMode, CaptureRequest, CompleteRequest, Customer, Delivery, GatewayAddress,
    RefundRequest, StartRequest, SyncRequest,
};
use crate::time::Timestamp;

fn call(call: Call) -> wg::Call {
    wg::Call {
        idempotency_key: call.idempotency_key,
        attempt: call.attempt,
        now_ms: millis(call.now),
        test_mode: call.test_mode,
    }
}

fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(0)
}

fn money(money: Money) -> wt::Money {
    wt::Money {
        minor: money.minor(),
        currency: money.currency().code().to_owned(),
        exponent: money.currency().exponent(),
    }
}

fn address(a: GatewayAddress) -> wg::Address {
    wg::Address {
        name: a.name,
        line1: a.line1,
        line2: a.line2,
        city: a.city,
        region: a.region,
        postal_code: a.postal_code,
        country: a.country,
    }
}

fn customer(c: Customer) -> wg::Customer {
    wg::Customer {
        id: c.id,
        email: c.email,
        phone: c.phone,
        ip: c.ip,
        billing: c.billing.map(address),
        shipping: c.shipping.map(address),
    }
}

impl From<StartRequest> for wg::StartRequest {
    fn from(r: StartRequest) -> Self {
        Self {
            call: call(r.call),
            payment_id: r.payment.to_string(),
            order_number: r.order_number,
            amount: money(r.amount),
            capture: match r.capture {
                CaptureMode::Automatic => wt::CaptureMode::Automatic,
                CaptureMode::Manual => wt::CaptureMode::Manual,
            },
            instrument: r.instrument,
            instrument_data: r.instrument_data,
            customer: customer(r.customer),
            description: r.description,
            return_url: r.return_url,
            cancel_url: r.cancel_url,
            webhook_url: r.webhook_url,
            off_session: r.off_session,
            metadata: r.metadata,
        }
    }
}

impl From<CompleteRequest> for wg::CompleteRequest {
    fn from(r: CompleteRequest) -> Self {
        Self {
            call: call(r.call),
            payment_id: r.payment.to_string(),
            reference: r.reference,
            amount: money(r.amount),
            state: r.state,
            params: r.params,
            body: r.body,
        }
    }
}

impl From<CaptureRequest> for wg::CaptureRequest {
    fn from(r: CaptureRequest) -> Self {
        Self {
            call: call(r.call),
            payment_id: r.payment.to_string(),
            reference: r.reference,
            state: r.state,
            amount: money(r.amount),
            final_capture: r.final_capture,
        }
    }
}

impl From<CancelRequest> for wg::CancelRequest {
    fn from(r: CancelRequest) -> Self {
        Self {
            call: call(r.call),
            payment_id: r.payment.to_string(),
            reference: r.reference,
            state: r.state,
            reason: r.reason,
        }
    }
}

impl From<RefundRequest> for wg::RefundRequest {
    fn from(r: RefundRequest) -> Self {
        Self {
            call: call(r.call),
            payment_id: r.payment.to_string(),
            refund_id: r.refund.to_string(),
            reference: r.reference,
            capture_reference: r.capture_reference,
            state: r.state,
            amount: money(r.amount),
            reason: r.reason,
        }
    }
}

impl From<SyncRequest> for wg::SyncRequest {
    fn from(r: SyncRequest) -> Self {
        Self {
            call: call(r.call),
            payment_id: r.payment.to_string(),
            reference: r.reference,
            state: r.state,
        }
    }
}

impl From<Delivery> for ww::Delivery {
    fn from(d: Delivery) -> Self {
        Self {
            method: d.method,
            url: d.url,
            query: d.query,
            headers: d.headers,
            body: d.body,
            received_at_ms: millis(d.received_at),
            remote_ip: d.remote_ip,
            tolerance_seconds: d.tolerance_seconds,
        }
    }
}
