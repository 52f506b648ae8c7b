"""Stripe's own Python library: signs and judges deliveries. One JSON list in on stdin, one out on stdout.

{"sign": TEXT, "secret": .., "at": SECONDS}                         -> the header
{"hmac": BASE64, "secret": .., "at": SECONDS}                       -> the header, over bytes that are no text
{"verify": BASE64, "header": .., "secret": .., "now": SECONDS}      -> null, or why it is refused
"""

import base64
import hashlib
import hmac
import json
import sys
import time

import stripe


def sign(job):
    return stripe.WebhookSignature.generate_signature_header(job["sign"], job["secret"], job["at"])


def sign_bytes(job):
    message = b"%d." % job["at"] + base64.b64decode(job["hmac"])
    digest = hmac.new(job["secret"].encode(), message, hashlib.sha256).hexdigest()
    return f"t={job['at']},v1={digest}"


def verify(job):
    # The library takes the time from here alone.
    time.time = lambda: job["now"]
    try:
        stripe.Webhook.construct_event(base64.b64decode(job["verify"]), job["header"], job["secret"])
    except (stripe.SignatureVerificationError, ValueError) as refused:
        return f"{type(refused).__name__}: {refused}"
    return None


def do(job):
    return sign(job) if "sign" in job else sign_bytes(job) if "hmac" in job else verify(job)


print(json.dumps([do(job) for job in json.load(sys.stdin)]))
