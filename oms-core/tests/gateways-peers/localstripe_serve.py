"""A stateful fake of Stripe (the package localstripe) on a free port of the loopback address, until stdin ends.

Its own command would listen on every address and keep its state in a shared file. Two things are added that Stripe has
and it lacks, because the plugin relies on them: lists of payments can be narrowed by time, the newest first, and
GET /_config/requests tells what was asked, for the tests to look at.
"""

import os
import socket
import sys
import threading

from aiohttp import web
from localstripe import resources
from localstripe.server import app, json_response

SEEN = []
HEADERS = ("idempotency-key", "stripe-version", "stripe-account", "content-type")


@web.middleware
async def remember(request, handler):
    if request.path.startswith("/v1/"):
        seen = {name: request.headers.get(name) for name in HEADERS}
        body = await request.text()
        SEEN.append({"method": request.method, "path": request.path, "body": body, "headers": seen})
    return await handler(request)


@web.middleware
async def payments_by_time(request, handler):
    is_list = request.method == "GET" and request.path == "/v1/payment_intents"
    if not is_list or "created[gte]" not in request.query:
        return await handler(request)
    since, until = (int(request.query[f"created[{end}]"]) for end in ("gte", "lte"))
    found = resources.PaymentIntent._api_list_all("/v1/payment_intents", limit=request.query.get("limit"))
    found._list = [intent for intent in found._list if since <= intent.created <= until]
    found._list.sort(key=lambda intent: intent.created, reverse=True)
    found._starting_after = request.query.get("starting_after")
    return json_response(found._export())


async def requests(_request):
    return json_response({"requests": SEEN})


def end_with_stdin():
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    resources.store.dump_to_disk = lambda: None
    app.middlewares.insert(0, remember)
    app.middlewares.append(payments_by_time)
    app.router.add_get("/_config/requests", requests)
    threading.Thread(target=end_with_stdin, daemon=True).start()
    # Connections wait in the listener until the server takes them.
    print(f"listening on {listener.getsockname()[1]}", flush=True)
    web.run_app(app, sock=listener, print=None)
