"""__ID__: a payment plugin for oms.

Every call runs in a fresh instance, so nothing is kept here. `oms.change` sends what changes something: without an
answer it raises `indeterminate`, never a failure.
"""

from typing import Any, Optional

import oms
from oms import RefuseWebhook, types

SCHEMA = {
    "type": "object",
    "required": ["base-url", "api-key", "webhook-secret"],
    "properties": {
        "base-url": {"type": "string", "format": "uri"},
        "api-key": {"type": "string", "writeOnly": True},
        "webhook-secret": {"type": "string", "pattern": "^whsec_", "writeOnly": True},
    },
    "additionalProperties": False,
}


class Descriptor:
    def describe(self):
        return oms.info(
            id="__ID__",
            name="__ID__",
            version="0.1.0",
            # Whatever is not named here answers `unsupported` by itself.
            features=["refund", "partial-refund", "sync", "webhooks"],
            config_schema=SCHEMA,
            hosts=["config:base-url"],
        )


class Gateway(oms.Gateway):
    def start(self, request):
        answer = change("/payments", request.call, {
            # Comes back in webhooks, and finds the payment when the answer to this is lost.
            "payment": request.payment_id,
            "amount": request.amount.minor,
            "currency": request.amount.currency,
            "capture": "automatic",
        })
        return result(answer)

    def refund(self, request):
        path = f"/payments/{oms.path_segment(request.reference)}/refunds"
        answer = change(path, request.call, {"refund": request.refund_id, "amount": request.amount.minor})
        made = body_of(answer)
        return oms.refund_result(
            REFUND_STATUS.get(text(made.get("status")), types.RefundStatus.PENDING),
            refund_id=request.refund_id,
            reference=text(made.get("id")),
            amount=request.amount,
        )

    def sync(self, request):
        if request.reference is not None:
            answer = read(f"/payments/{oms.path_segment(request.reference)}")
        else:
            answer = read("/payments", {"payment": request.payment_id})
        return oms.gateway.Snapshot(result(answer), [])


class Webhooks(oms.Webhooks):
    def receive(self, delivery):
        # The secret stays in the host. Nothing is read before this has succeeded.
        signed = oms.verify_standard_webhook(delivery, oms.secret_base64("webhook-secret"))
        message = oms.parse_json(delivery.body)
        said = totals(message) if isinstance(message, dict) else None
        if said is None or text(message.get("type")) is None or text(message.get("id")) is None:
            raise RefuseWebhook.malformed("not an event")
        change = oms.payment_change(STATUS.get(text(message.get("status"))), said)
        known = {"reference": message["id"], "payment_id": text(message.get("payment"))}
        return oms.event(signed, message["type"], change, **known)


# ---------------------------------------------------------------- the gateway's API and its words

STATUS = {
    "pending": types.PaymentStatus.PENDING,
    "captured": types.PaymentStatus.CAPTURED,
    "failed": types.PaymentStatus.FAILED,
}
REFUND_STATUS = {"succeeded": types.RefundStatus.SUCCEEDED, "failed": types.RefundStatus.FAILED}


def change(path: str, call: Any, json_body: dict) -> oms.Answer:
    """The gateway does a change at most once under the operation's key."""
    more = {**headers(), "idempotency-key": call.idempotency_key}
    return accept(oms.change(url(path), headers=more, json_body=json_body))


def read(path: str, query: Optional[dict] = None) -> oms.Answer:
    return accept(oms.read(url(path), headers=headers(), query=query))


def url(path: str) -> str:
    return oms.config_require("base-url").rstrip("/") + path


def headers() -> dict:
    return {"authorization": "Bearer " + oms.config_secret("api-key")}


def accept(answer: oms.Answer) -> oms.Answer:
    if answer.ok:
        return answer
    # A proxy in between answers in its own words.
    body = oms.parse_json(answer.body)
    words = body if isinstance(body, dict) else {}
    raise answer.refusal(text(words.get("code")), text(words.get("message")))


def body_of(answer: oms.Answer) -> dict:
    """A success of another shape is as unreadable as one that is no JSON."""
    body = answer.json()
    if not isinstance(body, dict) or text(body.get("id")) is None:
        raise answer.lost("unreadable_answer", "the answer has no id", http_status=answer.status)
    return body


def result(answer: oms.Answer):
    payment = body_of(answer)
    said = totals(payment)
    if said is None:
        raise answer.lost("unreadable_answer", "the answer has no totals", http_status=answer.status)
    # A status that this version does not know is no failure.
    status = STATUS.get(text(payment.get("status")), types.PaymentStatus.PENDING)
    return oms.payment_result(status, reference=payment["id"], totals=said)


def totals(payment: dict) -> Optional[types.Totals]:
    currency, captured, refunded = (payment.get(name) for name in ("currency", "captured", "refunded"))
    if text(currency) is None or not all(type(n) is int and 0 <= n < 2**53 for n in (captured, refunded)):
        return None
    return oms.totals(currency=currency, captured=captured, refunded=refunded)


def text(value: Any) -> Optional[str]:
    return value if isinstance(value, str) and value else None
