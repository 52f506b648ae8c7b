//! Money that comes without a gateway: by bank transfer, or in cash on delivery. The customer is shown where to pay; an
//! operator sees the money and says so (`POST /v1/admin/payments/{id}/received`). The plugin asks nobody, so that it can
//! tell nothing by itself.

mod iban;
mod present;

use oms_plugin_sdk::{
    CancelRequest, Features, Gateway, Info, NextAction, PaymentError, PaymentResult, PaymentStatus,
    RefundRequest, RefundResult, RefundStatus, StartRequest, config, export_plugin,
};
use present::Settings;

struct Manual;

export_plugin!(Manual, no webhooks);

impl Gateway for Manual {
    fn describe() -> Info {
        Info {
            id: "manual".into(),
            name: "Bank transfer or cash on delivery".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            features: Features::CANCEL | Features::REFUND | Features::PARTIAL_REFUND,
            config_schema: include_str!("../config-schema.json").into(),
            hosts: Vec::new(),
            currencies: Vec::new(),
        }
    }

    fn start(request: StartRequest) -> Result<PaymentResult, PaymentError> {
        let shown = Settings::read(config::get)?.present(&request.order_number, &request.amount);
        Ok(PaymentResult {
            // There is no other name for it.
            reference: Some(request.payment_id),
            next_action: Some(NextAction::Present(shown.to_string())),
            ..PaymentResult::new(PaymentStatus::ActionRequired)
        })
    }

    fn cancel(request: CancelRequest) -> Result<PaymentResult, PaymentError> {
        Ok(PaymentResult {
            reference: Some(request.reference),
            ..PaymentResult::new(PaymentStatus::Canceled)
        })
    }

    /// Somebody has to send the money, and says so afterwards.
    fn refund(request: RefundRequest) -> Result<RefundResult, PaymentError> {
        Ok(RefundResult {
            reference: Some(request.refund_id.clone()),
            refund_id: Some(request.refund_id),
            status: RefundStatus::Pending,
            amount: Some(request.amount),
            raw: None,
        })
    }
}
