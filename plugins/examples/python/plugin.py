"""The fake bank of oms-server as a payment plugin in Python: the same gateway as plugins/mock has in Rust.

Account settings: base-url (where the bank is mounted), timeout-ms (optional, how long to wait for an answer).
Secrets: api-key, webhook-secret (as the bank shows it, with whsec_).
"""

from typing import Any, Callable, Optional

import oms
from oms import Refuse, RefuseWebhook, types

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["base-url", "api-key", "webhook-secret"],
    "properties": {
        "base-url": {"type": "string", "format": "uri", "description": "Where the fake bank is mounted"},
        "timeout-ms": {"type": "string", "pattern": "^[1-9][0-9]{0,5}$", "default": "10000"},
        "api-key": {"type": "string", "writeOnly": True},
        "webhook-secret": {"type": "string", "pattern": "^whsec_", "writeOnly": True},
    },
    "additionalProperties": False,
}


class Descriptor:
    def describe(self):
        return oms.info(
            id="example-python",
            name="Example in Python",
            version="0.1.0",
            features=[
                "manual-capture", "partial-capture", "multiple-capture", "cancel", "refund", "partial-refund", "sync",
                "complete", "webhooks",
            ],
            config_schema=SCHEMA,
            hosts=["config:base-url"],
        )


# ---------------------------------------------------------------- operations


class Gateway(oms.Gateway):
    def start(self, request):
        answer = change_at_bank("/v1/payments", request.call, {
            "merchant_payment_id": request.payment_id,
            "order_number": request.order_number,
            "amount": request.amount.minor,
            "currency": request.amount.currency,
            "exponent": request.amount.exponent,
            "capture": "manual" if request.capture is types.CaptureMode.MANUAL else "automatic",
            "description": request.description,
            "return_url": request.return_url,
            "cancel_url": request.cancel_url,
            "webhook_url": request.webhook_url,
            "off_session": request.off_session,
        })
        return payment_result(payment_of(answer), answer)

    def complete(self, request):
        # The query that the customer brought back is unsigned, so it is not looked at.
        answer = read_at_bank(payment_path(request.reference))
        return payment_result(payment_of(answer), answer)

    def capture(self, request):
        answer = change_at_bank(payment_path(request.reference, "/capture"), request.call, {
            "amount": request.amount.minor,
            "currency": request.amount.currency,
            "final": request.final_capture,
        })
        payment = payment_of(answer)
        result = payment_result(payment, answer)
        # The answer shows the payment as it was right after this capture, so the last one is ours.
        result.operation_reference = payment["captures"][-1]["id"] if payment.get("captures") else None
        return result

    def cancel(self, request):
        path = payment_path(request.reference, "/cancel")
        answer = change_at_bank(path, request.call, {"reason": request.reason})
        return payment_result(payment_of(answer), answer)

    def refund(self, request):
        answer = change_at_bank(payment_path(request.reference, "/refunds"), request.call, {
            "merchant_refund_id": request.refund_id,
            "amount": request.amount.minor,
            "currency": request.amount.currency,
            "reason": request.reason,
        })
        made = answer.json()
        if not is_refund(made):
            raise unreadable(answer)
        return refund_result(made, request.amount.currency, request.amount.exponent, answer)

    def sync(self, request):
        if request.reference is not None:
            answer = read_at_bank(payment_path(request.reference))
        else:
            answer = read_at_bank("/v1/payments", {"merchant_payment_id": request.payment_id})
        payment = payment_of(answer)
        if payment["merchant_payment_id"] != request.payment_id:
            raise Refuse.internal(f"the bank answered with payment {payment['id']}, not with the one asked for")
        refunds = [refund_result(r, payment["currency"], payment["exponent"]) for r in payment.get("refunds", [])]
        return oms.gateway.Snapshot(payment_result(payment, answer), refunds)


# ---------------------------------------------------------------- webhooks


class Webhooks(oms.Webhooks):
    def receive(self, delivery):
        signed = oms.verify_standard_webhook(delivery, oms.secret_base64("webhook-secret"))
        message = oms.parse_json(delivery.body)
        message = message if isinstance(message, dict) else {}
        kind, created_at_ms, data = (message.get(name) for name in ("type", "created_at_ms", "data"))
        payment = data.get("payment") if isinstance(data, dict) else None
        if not is_text(kind) or not is_whole(created_at_ms) or created_at_ms < 0 or not is_payment(payment):
            raise RefuseWebhook.malformed("not a message of the bank")
        change = what_changed(kind, payment, data.get("refund"))
        known = {"reference": payment["id"], "payment_id": payment["merchant_payment_id"]}
        oms.log("debug", "webhook verified", event=signed.id, kind=kind)
        return oms.event(signed, kind, change, occurred_at_ms=created_at_ms, **known)


def what_changed(kind: str, payment: dict, refund: Any):
    if kind.startswith("payment."):
        return oms.payment_change(STATUS[payment["status"]], totals(payment), payment.get("decline_code"))
    # The bank may learn to tell more than this plugin understands.
    if not kind.startswith("refund."):
        return oms.webhooks.Change_Irrelevant()
    if not is_refund(refund):
        raise RefuseWebhook.malformed("a refund event without a refund")
    amount = types.Money(refund["amount"], payment["currency"], payment["exponent"])
    return oms.refund_change(refund["id"], REFUND_STATUS[refund["status"]], refund.get("merchant_refund_id"), amount)


# ---------------------------------------------------------------- the bank's API and its words


def change_at_bank(path: str, call: Any, body: dict) -> oms.Answer:
    """The bank does a change at most once under the operation's key."""
    headers = {**bank_headers(), "idempotency-key": call.idempotency_key}
    return accept(oms.change(bank_url(path), headers=headers, json_body=body, timeout_ms=timeout()))


def read_at_bank(path: str, query: Optional[dict] = None) -> oms.Answer:
    return accept(oms.read(bank_url(path), headers=bank_headers(), query=query, timeout_ms=timeout()))


def bank_url(path: str) -> str:
    return oms.config_require("base-url").rstrip("/") + path


def bank_headers() -> dict:
    return {"authorization": "Bearer " + oms.config_secret("api-key"), "accept": "application/json"}


def timeout() -> int:
    setting = (oms.config_get("timeout-ms") or "").strip() or "10000"
    if not (setting.isascii() and setting.isdigit() and len(setting) < 10 and int(setting) > 0):
        raise Refuse.misconfigured("`timeout-ms` is not a number of milliseconds")
    return int(setting)


def accept(answer: oms.Answer) -> oms.Answer:
    if answer.ok:
        return answer
    # A proxy in between answers in its own words.
    page = oms.parse_json(answer.body)
    error = page.get("error") if isinstance(page, dict) else None
    words = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, None)
    code, message = (word if is_text(word) else None for word in words)
    # Not about the payment: the host used one key for two different requests.
    if code == "idempotency_key_reused":
        raise Refuse.invalid_request(code, message, answer.status, code)
    raise answer.refusal(code, message)


def payment_path(reference: str, operation: str = "") -> str:
    return f"/v1/payments/{oms.path_segment(reference)}{operation}"


STATUS = {status.name.lower(): status for status in types.PaymentStatus}
REFUND_STATUS = {"succeeded": types.RefundStatus.SUCCEEDED, "failed": types.RefundStatus.FAILED}


# What the host cannot take ends the call as a trap, so the shape is looked at before anything is handed over: each
# text, each whole number, each list.
def is_payment(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(is_text(value.get(name)) for name in ("id", "merchant_payment_id", "currency"))
        and is_text(value.get("status")) and value["status"] in STATUS
        and is_whole(value.get("exponent")) and 0 <= value["exponent"] <= 255
        and all(is_whole(value.get(name)) for name in ("authorized", "captured", "refunded", "canceled"))
        and all(is_text_or_none(value.get(name)) for name in ("redirect_url", "decline_code"))
        and is_list_of(value.get("captures", []), is_capture)
        and is_list_of(value.get("refunds", []), is_refund)
    )


def is_capture(value: Any) -> bool:
    return isinstance(value, dict) and is_text(value.get("id"))


def is_refund(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and is_text(value.get("id")) and is_text_or_none(value.get("merchant_refund_id"))
        and is_whole(value.get("amount"))
        and is_text(value.get("status")) and value["status"] in REFUND_STATUS
    )


def is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def is_whole(value: Any) -> bool:
    """A number that 64 bits hold; True and False are none."""
    return type(value) is int and -(2**63) <= value < 2**63


def is_list_of(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(fits(item) for item in value)


def payment_of(answer: oms.Answer) -> dict:
    payment = answer.json()
    if not is_payment(payment):
        raise unreadable(answer)
    return payment


def unreadable(answer: oms.Answer) -> oms.Err:
    """A success of another shape is as unreadable as one that is no JSON: a change may have happened."""
    return answer.lost("unreadable_answer", "the answer has another shape", http_status=answer.status)


def payment_result(payment: dict, answer: oms.Answer):
    page = payment.get("redirect_url")
    return oms.payment_result(
        STATUS[payment["status"]],
        reference=payment["id"],
        totals=totals(payment),
        next_action=oms.redirect_to(page) if page else None,
        raw=answer.text(),
    )


def refund_result(refund: dict, currency: str, exponent: int, answer: Optional[oms.Answer] = None):
    return oms.refund_result(
        REFUND_STATUS[refund["status"]],
        refund_id=refund.get("merchant_refund_id"),
        reference=refund["id"],
        amount=types.Money(refund["amount"], currency, exponent),
        raw=answer.text() if answer else None,
    )


def totals(payment: dict) -> types.Totals:
    names = ["currency", "authorized", "captured", "refunded", "canceled"]
    return oms.totals(**{name: payment[name] for name in names})
