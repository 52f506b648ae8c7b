"""An SMTP server that does as it is told, and tells in lines of JSON what it saw.

Its one argument is a JSON object: what it speaks (`tls`: none, starttls or implicit, with `cert` and `key`; `login`:
user and password), its `port` (0 for a free one), and how it treats the mails that come, in their order; after the
list every mail is taken:

    {"tls": "starttls", "cert": "..", "key": "..", "login": ["me", "secret"], "port": 0,
     "plan": ["rcpt 450", "rcpt 550", "data 451", "data 554", "mute in data", "cut in data", "mute after data"]}

A connection itself may be `"mute"`: then it gets no greeting, as many times as `mute` says.
"""

import asyncio
import email
import email.policy
import json
import logging
import ssl
import sys
import warnings

from aiosmtpd.smtp import SMTP, AuthResult

# Of no use to whoever reads a test: what this server does is wrong on purpose.
warnings.simplefilter("ignore")
logging.disable(logging.ERROR)
settings = json.loads(sys.argv[1])
plan = list(settings.get("plan", []))
counts = {"connection": 0, "mute": settings.get("mute", 0)}


def tell(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


def protected(server):
    return server.transport.get_extra_info("ssl_object") is not None


def part(message, kind):
    found = message.get_body((kind,))
    return found.get_content() if found else None


def facts_of(message):
    return {
        "headers": [[name, str(value)] for name, value in message.items()],
        "subject": str(message["subject"]),
        "message_id": str(message["message-id"]),
        "text": part(message, "plain"),
        "html": part(message, "html"),
    }


class Handler:
    async def handle_MAIL(self, server, session, envelope, address, options):
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        envelope.step = plan.pop(0) if plan else "take"
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if envelope.step.startswith("rcpt "):
            code = envelope.step.split()[1]
            tell("refused", code=int(code), to=address)
            return f"{code} not for this mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        raw = envelope.original_content
        message = email.message_from_bytes(raw, policy=email.policy.default)
        if envelope.step.startswith("data "):
            code = envelope.step.split()[1]
            tell("refused", code=int(code), to=envelope.rcpt_tos[0])
            return f"{code} not this mail"
        tell(
            "mail",
            sender=envelope.mail_from,
            to=envelope.rcpt_tos,
            ascii=raw.isascii(),
            tls=protected(server),
            login=session.authenticated,
            connection=server.number,
            **facts_of(message),
        )
        if envelope.step == "mute after data":
            await asyncio.sleep(3600)
        return "250 OK"


class Server(SMTP):
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        counts["connection"] += 1
        self.number = counts["connection"]

    def connection_made(self, transport):
        if counts["mute"] > 0:
            counts["mute"] -= 1
            tell("mute")
            # Kept, since a transport that nobody holds is closed.
            self.muted = transport
            return
        super().connection_made(transport)

    def data_received(self, data):
        if not hasattr(self, "muted"):
            super().data_received(data)

    def eof_received(self):
        if not hasattr(self, "muted"):
            return super().eof_received()

    def connection_lost(self, error):
        if not hasattr(self, "muted"):
            super().connection_lost(error)

    async def smtp_DATA(self, arg):
        step = getattr(self.envelope, "step", "")
        if not step.endswith(" in data"):
            return await super().smtp_DATA(arg)
        tell(step)
        await self.push("354 go on")
        if step == "cut in data":
            self.transport.abort()
            return
        await asyncio.sleep(3600)


def log_in(server, session, envelope, mechanism, data):
    given = [data.login.decode(), data.password.decode()]
    good = given == settings["login"]
    tell("login", good=good, tls=protected(server))
    return AuthResult(success=good, handled=False)


async def main():
    context = None
    if settings["tls"] != "none":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings["cert"], settings["key"])
    starttls = settings["tls"] == "starttls"
    login = {}
    if "login" in settings:
        login = {
            "auth_required": True,
            "auth_require_tls": starttls,
            "authenticator": log_in,
        }

    def make():
        return Server(
            Handler(),
            hostname="localhost",
            tls_context=context if starttls else None,
            require_starttls=starttls,
            enable_SMTPUTF8=True,
            loop=asyncio.get_running_loop(),
            **login,
        )

    implicit = context if settings["tls"] == "implicit" else None
    server = await asyncio.get_running_loop().create_server(
        make, "127.0.0.1", settings.get("port", 0), ssl=implicit
    )
    tell("ready", port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


asyncio.run(main())
