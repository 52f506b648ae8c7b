"""Which of the names that we send or read are unknown to Stripe's own library, by its types.

One JSON list in on stdin: {"type": "params.RefundCreateParams" or "Refund", "names": [..]}; one list of lists out.
Names of fields of fields are written `outer.inner`; `[]` of lists and keys of metadata are left out.
"""

import json
import sys
import typing

import stripe
import stripe.params


def fields(kind):
    names = {}
    for base in reversed(kind.__mro__):
        names.update(getattr(base, "__annotations__", {}))
    return names


def find(path):
    found = stripe
    for name in path.split("."):
        found = getattr(found, name)
    return found


def unknown(job):
    names = fields(find(job["type"]))
    return [name for name in job["names"] if name not in names]


def values(job):
    """The values that a field may have, where the library knows them."""
    parts = [fields(find(job["type"]))[job["values"]]]
    found = set()
    while parts:
        part = parts.pop()
        found.update([part] if isinstance(part, str) else [])
        parts.extend(typing.get_args(part))
    return sorted(found)


print(json.dumps([values(job) if "values" in job else unknown(job) for job in json.load(sys.stdin)]))
