"""The contract oms:payment@1 in comfortable Python: requests, refusals, settings, Standard Webhooks.

Copy this file beside your plugin.py; there is nothing in it to change.

Python's standard library is only there while the component is built: whatever is imported later, also by the library
itself inside a function, fails with ModuleNotFoundError. So import everything at the top of your module, and give it
one try here when a module loads a part of itself late: see `_load_early`.
"""

import base64
import binascii
import json
import re
import traceback
import urllib.parse
from dataclasses import dataclass
from typing import Any, Callable, NoReturn, Optional

from componentize_py_types import Err
from wit_world.exports import descriptor, gateway, webhooks
from wit_world.imports import config as host_config
from wit_world.imports import crypto as host_crypto
from wit_world.imports import http as host_http
from wit_world.imports import log as host_log
from wit_world.imports import types

__all__ = [
    "Answer", "Err", "Gateway", "Refuse", "RefuseWebhook", "Signed", "Webhooks", "change", "config_get",
    "config_require", "config_secret", "event", "log", "parse_json", "path_segment", "payment_change", "payment_result",
    "read", "redirect_to", "refund_change", "refund_result", "secret_base64", "totals", "types", "verify_hmac",
    "verify_standard_webhook", "webhooks",
]


def _load_early() -> None:
    """Uses once, while the component is built, what the standard library loads on first use."""
    urllib.parse.urlencode({"a": "\u00e4"})
    base64.b64decode("AAAA", validate=True)
    json.loads("{}")
    "\u00e4".encode("utf-8").decode("utf-8", "replace")
    try:
        json.loads("{")
    except ValueError:
        traceback.format_exc()


_load_early()


# ---------------------------------------------------------------- the plugin


class Gateway:
    """Inherit it as `class Gateway(oms.Gateway)` and write the operations that the gateway has.

    Say no with `raise Refuse.declined(..)` and the others. Any other exception ends the call as a trap, which is right
    for a defect: the host knows whether a request had left, and its log shows the traceback.
    """

    def start(self, request: gateway.StartRequest) -> gateway.PaymentResult:
        raise Refuse.unsupported("start")

    def complete(self, request: gateway.CompleteRequest) -> gateway.PaymentResult:
        raise Refuse.unsupported("complete")

    def capture(self, request: gateway.CaptureRequest) -> gateway.PaymentResult:
        raise Refuse.unsupported("capture")

    def cancel(self, request: gateway.CancelRequest) -> gateway.PaymentResult:
        raise Refuse.unsupported("cancel")

    def refund(self, request: gateway.RefundRequest) -> gateway.RefundResult:
        raise Refuse.unsupported("refund")

    def sync(self, request: gateway.SyncRequest) -> gateway.Snapshot:
        raise Refuse.unsupported("sync")


class Webhooks:
    """Inherit it as `class Webhooks(oms.Webhooks)`; leave it as it is for a gateway without webhooks."""

    def receive(self, delivery: webhooks.Delivery) -> webhooks.Outcome:
        raise RefuseWebhook.malformed("this plugin takes no webhooks")


def info(features: list[str], config_schema: dict, **fields: Any) -> descriptor.Info:
    """What `describe` answers; features by their names in the contract, such as "manual-capture"."""
    flags = descriptor.Feature(0)
    for name in features:
        flags |= descriptor.Feature[name.upper().replace("-", "_")]
    fields.setdefault("currencies", [])
    return descriptor.Info(features=flags, config_schema=json.dumps(config_schema), **fields)


def totals(
    currency: Optional[str] = None,
    authorized: Optional[int] = None,
    captured: Optional[int] = None,
    refunded: Optional[int] = None,
    canceled: Optional[int] = None,
) -> types.Totals:
    """Cumulative totals; what is left out, the gateway does not say."""
    return types.Totals(currency, authorized, captured, refunded, canceled)


def payment_result(status: types.PaymentStatus, **known: Any) -> gateway.PaymentResult:
    """A result of which the status is known and what else is named."""
    usual = dict(
        reference=None, operation_reference=None, totals=totals(), next_action=None, expires_at_ms=None, state=None,
        method=[], raw=None,
    )
    return gateway.PaymentResult(status, **{**usual, **known})


def refund_result(status: types.RefundStatus, **known: Any) -> gateway.RefundResult:
    """The result of a refund of which the status is known and what else is named."""
    return gateway.RefundResult(status=status, **{**dict(refund_id=None, reference=None, amount=None, raw=None), **known})


def redirect_to(url: str) -> types.NextAction:
    """Sends the customer to a page with a plain link."""
    return types.NextAction_Redirect(types.Redirect(url, types.RedirectMethod.GET, []))


# ---------------------------------------------------------------- saying no


def _detail(code: str, message: str, http_status: Optional[int], gateway_code: Optional[str]) -> types.Detail:
    return types.Detail(code, message, http_status, gateway_code)


class Refuse:
    """Errors of operations: `raise Refuse.declined(..)`. Each tells the host what it may do next."""

    @staticmethod
    def declined(code: str, message: str, gateway_code: Optional[str] = None, customer_can_retry: bool = True) -> Err:
        """The final "no" of the customer's bank."""
        return Err(types.PaymentError_Declined(types.Decline(code, message, gateway_code, customer_can_retry)))

    @staticmethod
    def invalid_request(code: str, message: str, http_status: Optional[int] = None, gateway_code: Optional[str] = None) -> Err:
        """What was sent can never work."""
        return Err(types.PaymentError_InvalidRequest(_detail(code, message, http_status, gateway_code)))

    @staticmethod
    def invalid_state(code: str, message: str, http_status: Optional[int] = None, gateway_code: Optional[str] = None) -> Err:
        """The payment is in another state at the gateway."""
        return Err(types.PaymentError_InvalidState(_detail(code, message, http_status, gateway_code)))

    @staticmethod
    def not_found(what: str) -> Err:
        """The gateway itself says that it has never seen this."""
        return Err(types.PaymentError_NotFound(what))

    @staticmethod
    def unsupported(operation: str) -> Err:
        """The gateway has no such operation."""
        return Err(types.PaymentError_Unsupported(operation))

    @staticmethod
    def not_authenticated(code: str, message: str, http_status: Optional[int] = None, gateway_code: Optional[str] = None) -> Err:
        """The gateway refuses our credentials."""
        return Err(types.PaymentError_NotAuthenticated(_detail(code, message, http_status, gateway_code)))

    @staticmethod
    def rate_limited(seconds: Optional[int] = None) -> Err:
        """It did not happen; try again after so many seconds, if the gateway said."""
        return Err(types.PaymentError_RateLimited(seconds))

    @staticmethod
    def unavailable(code: str, message: str, http_status: Optional[int] = None, gateway_code: Optional[str] = None) -> Err:
        """It certainly did not happen."""
        return Err(types.PaymentError_Unavailable(_detail(code, message, http_status, gateway_code)))

    @staticmethod
    def indeterminate(code: str, message: str, http_status: Optional[int] = None, gateway_code: Optional[str] = None) -> Err:
        """It may have happened: the host finds out before it does anything else."""
        return Err(types.PaymentError_Indeterminate(_detail(code, message, http_status, gateway_code)))

    @staticmethod
    def misconfigured(message: str) -> Err:
        """A setting is missing or malformed."""
        return Err(types.PaymentError_Misconfigured(message))

    @staticmethod
    def internal(message: str) -> Err:
        """A defect of the plugin."""
        return Err(types.PaymentError_Internal(message))


class RefuseWebhook:
    """Errors of `receive`."""

    @staticmethod
    def missing_signature(what: str) -> Err:
        return Err(webhooks.WebhookError_MissingSignature(what))

    @staticmethod
    def bad_signature() -> Err:
        return Err(webhooks.WebhookError_BadSignature())

    @staticmethod
    def stale(signed_at_ms: int) -> Err:
        return Err(webhooks.WebhookError_Stale(signed_at_ms))

    @staticmethod
    def malformed(what: str) -> Err:
        return Err(webhooks.WebhookError_Malformed(what))

    @staticmethod
    def misconfigured(what: str) -> Err:
        return Err(webhooks.WebhookError_Misconfigured(what))

    @staticmethod
    def unavailable(what: str) -> Err:
        return Err(webhooks.WebhookError_Unavailable(what))


# ---------------------------------------------------------------- settings and log


def config_get(name: str) -> Optional[str]:
    """A setting that may be left out."""
    return host_config.get(name)


def config_require(name: str) -> str:
    """A setting that must be there and not blank."""
    return _present(name, host_config.get(name))


def config_secret(name: str) -> str:
    """Reveals a secret, for what must be sent. To compute with one, name it in a key, and it stays in the host."""
    return _present(name, host_config.reveal_secret(name))


def _present(name: str, value: Optional[str]) -> str:
    if not value or not value.strip():
        raise Refuse.misconfigured(f"the account has no setting `{name}`")
    return value


def log(level: str, message: str, **fields: Any) -> None:
    """A line in the host's log: debug, info, warn or error. The message must be readable without the fields."""
    host_log.write(host_log.Level[level.upper()], message, [(name, str(value)) for name, value in fields.items()])


# ---------------------------------------------------------------- requests

# Makes the error for "there is no answer that could be read".
Lost = Callable[..., Err]


def change(url: str, **options: Any) -> "Answer":
    """Sends a request that changes something at the gateway: method, headers, query, json, form, timeout_ms.

    Without an answer it raises `indeterminate`, unless the request certainly did not leave.
    """
    return _send(url, Refuse.indeterminate, **{"method": "POST", **options})


def read(url: str, **options: Any) -> "Answer":
    """Sends a request that only asks. Whatever goes wrong, nothing has happened: `unavailable`."""
    return _send(url, Refuse.unavailable, **{"method": "GET", **options})


def _send(
    url: str,
    lost: Lost,
    method: str,
    headers: Optional[dict[str, str]] = None,
    query: Optional[dict[str, str]] = None,
    json_body: Any = None,
    form: Optional[dict[str, str]] = None,
    timeout_ms: Optional[int] = None,
) -> "Answer":
    headers, body = dict(headers or {}), b""
    if json_body is not None:
        headers["content-type"] = "application/json"
        body = json.dumps(json_body, ensure_ascii=False).encode()
    elif form is not None:
        headers["content-type"] = "application/x-www-form-urlencoded"
        body = urllib.parse.urlencode(form).encode()
    if query:
        url += ("&" if "?" in url else "?") + urllib.parse.urlencode(query)
    lines = [(name, value.encode()) for name, value in headers.items()]
    try:
        response = host_http.send(host_http.Request(method, url, lines, body, timeout_ms))
    except Err as failed:
        raise _no_answer(failed.value, lost) from None
    return Answer(response.status, response.headers, response.body, lost)


def _no_answer(error: host_http.HttpError, lost: Lost) -> Err:
    match error:
        case host_http.HttpError_Denied(why):
            return Refuse.misconfigured(f"the host does not allow this request: {why}")
        case host_http.HttpError_NotSent(why):
            return Refuse.unavailable("not_sent", why)
        case host_http.HttpError_OutcomeUnknown(why):
            return lost("outcome_unknown", why)
        case host_http.HttpError_TooLarge(size):
            return lost("too_large", f"{size} bytes are more than the host lets through")
    return Refuse.internal(f"an error that this contract does not have: {error!r}")


def path_segment(text: str) -> str:
    """A text as one segment of a path."""
    return urllib.parse.quote(text, safe="")


@dataclass
class Answer:
    """A complete answer, with whatever status."""

    status: int
    headers: list[tuple[str, bytes]]
    body: bytes
    lost: Lost

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def header(self, name: str) -> Optional[str]:
        """The first header of this name, in any case."""
        for header, value in self.headers:
            if header.lower() == name.lower():
                return value.decode("utf-8", "replace")
        return None

    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON. A success that cannot be read is no failure: a change may have happened."""
        value = parse_json(self.body)
        if value is None:
            raise self.lost("unreadable_answer", "the answer is not JSON", http_status=self.status)
        return value

    def refusal(self, code: Optional[str] = None, message: Optional[str] = None) -> Err:
        """What a status other than 2xx usually means, to be raised. `code`, `message`: the gateway's own words."""
        words = message or f"the gateway answered with status {self.status}"
        more = (code or "refused", words, self.status, code)
        match self.status:
            case 401 | 403:
                return Refuse.not_authenticated(*more)
            case 402:
                return Refuse.declined(code or "refused", words, gateway_code=code)
            case 404:
                return Refuse.not_found(words)
            case 409:
                return Refuse.invalid_state(*more)
            case 429:
                seconds = (self.header("retry-after") or "").strip()
                is_number = seconds.isascii() and seconds.isdigit() and len(seconds) < 10
                return Refuse.rate_limited(int(seconds) if is_number else None)
        return self.lost(*more) if self.status >= 500 else Refuse.invalid_request(*more)


# What is nested deeper is no message of a gateway, and would overflow the stack of the language.
MAX_DEPTH = 64
# A string without an end takes the rest, so that nothing is looked at twice.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def parse_json(body: bytes) -> Any:
    """JSON of bytes; None for what is not JSON."""
    try:
        text = body.decode("utf-8")
        return None if _is_too_deep(text) else json.loads(text)
    except ValueError:
        return None


def _is_too_deep(text: str) -> bool:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        mark = match.group()
        if mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif mark in "]}":
            depth -= 1
    return False


# ---------------------------------------------------------------- webhooks


def event(signed: "Signed", kind: str, change: webhooks.Change, **known: Any) -> webhooks.Outcome:
    """The usual outcome: one event, verified."""
    usual = dict(occurred_at_ms=None, reference=None, payment_id=None)
    one = webhooks.Event(id=signed.id, kind=kind, change=change, **{**usual, **known})
    return webhooks.Outcome_Verified(webhooks.Verified([one], signed.at_ms, None, None))


def payment_change(status: Optional[types.PaymentStatus], totals: types.Totals, decline_code: Optional[str] = None) -> webhooks.Change:
    """What an event says of a payment."""
    return webhooks.Change_Payment(webhooks.PaymentEvent(status, totals, decline_code, None))


def refund_change(
    reference: str, status: types.RefundStatus, refund_id: Optional[str] = None, amount: Optional[types.Money] = None
) -> webhooks.Change:
    """What an event says of a refund."""
    return webhooks.Change_Refund(webhooks.RefundEvent(refund_id, reference, status, amount))


def secret_base64(name: str) -> host_crypto.Key:
    """A key as it is named to the host: the account's secret, decoded from Base64 without a leading `whsec_`."""
    return host_crypto.Key_SecretBase64(name)


def verify_hmac(algorithm: host_crypto.Hash, key: host_crypto.Key, message: bytes, expected: bytes) -> bool:
    """Whether `expected` is the HMAC of `message`: computed by the host in constant time, with a key that stays there."""
    try:
        return host_crypto.verify_hmac(algorithm, key, message, expected)
    except Err as failed:
        # The host refuses to compute only when the named secret is absent or not in the stated encoding.
        raise RefuseWebhook.misconfigured(failed.value) from None


@dataclass
class Signed:
    """What a signature vouches for besides the body: the message's id, the same in every attempt, and when."""

    id: str
    at_ms: int


MAX_SIGNATURES = 16


def verify_standard_webhook(delivery: webhooks.Delivery, key: host_crypto.Key) -> Signed:
    """Checks the signature and the time of a delivery by the Standard Webhooks specification.

    Headers webhook-id, webhook-timestamp and webhook-signature, HMAC-SHA256 over `id.timestamp.body`.
    """
    id = _required_header(delivery, "webhook-id")
    timestamp = _required_header(delivery, "webhook-timestamp")
    signatures = _required_header(delivery, "webhook-signature")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise RefuseWebhook.malformed("`webhook-timestamp` is not a number of seconds")

    message = f"{id}.{timestamp}.".encode() + delivery.body
    if not any(_fits(signature, key, message) for signature in signatures.split(" ")[:MAX_SIGNATURES]):
        raise RefuseWebhook.bad_signature()

    # In whole seconds, as the sender has them; in both directions; after the signature, so that only genuine deliveries
    # are called stale.
    if abs(int(timestamp) - delivery.received_at_ms // 1000) > delivery.tolerance_seconds:
        raise RefuseWebhook.stale(int(timestamp) * 1000)
    return Signed(id, int(timestamp) * 1000)


def _fits(signature: str, key: host_crypto.Key, message: bytes) -> bool:
    if not signature.startswith("v1,"):
        return False
    try:
        expected = base64.b64decode(signature[3:], validate=True)
    except (binascii.Error, ValueError):
        return False
    return verify_hmac(host_crypto.Hash.SHA256, key, message, expected)


def _required_header(delivery: webhooks.Delivery, name: str) -> str:
    """Exactly one header of this name: with two, sender and receiver might look at different ones."""
    values = [value for header, value in delivery.headers if header.lower() == name]
    if not values or not values[0]:
        raise RefuseWebhook.missing_signature(f"no header `{name}`")
    try:
        text = values[0].decode("utf-8")
    except UnicodeDecodeError:
        raise RefuseWebhook.malformed(f"header `{name}` is no text") from None
    if len(values) > 1:
        raise RefuseWebhook.malformed(f"two headers `{name}`")
    return text
