"""Receives notifications on one machine: a webhook receiver and a mail server.

Messages are passed on and not stored. Knows nothing of Prefect.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from deployments.local.processes import free_port

HOST = "127.0.0.1"
SENDER = "elt@example.com"
RECIPIENT = "you@example.com"


@dataclass(frozen=True)
class Message:
    """A received message.

    Attributes:
        channel: "mail" or "webhook".
        subject: empty where the channel has none.
        text: the mail's text, or what was posted: a line per member of a JSON object.
    """

    channel: str
    subject: str
    text: str


Tell = Callable[[Message], None]


@contextmanager
def receiving(tell: Tell) -> Iterator[Mapping[str, str]]:
    """Receive until the block ends; the receivers call `tell` in their own threads.

    Yields the variables from which `make deploy` creates notification blocks.
    """
    with _webhook(tell) as webhook_url, _mail_server(tell) as email_url:
        yield {"NOTIFY_WEBHOOK_URL": webhook_url, "NOTIFY_EMAIL_URL": email_url}


@contextmanager
def _webhook(tell: Tell) -> Iterator[str]:
    server = ThreadingHTTPServer((HOST, 0), _handler(tell))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(tell: Tell) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            tell(Message("webhook", "", _readable(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Do not log requests."""

    return Handler


def _readable(body: bytes) -> str:
    text = body.decode(errors="replace")
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return text
    if not isinstance(document, dict):
        return text
    return "\n".join(f"{name}: {value}" for name, value in document.items())


@contextmanager
def _mail_server(tell: Tell) -> Iterator[str]:
    """Yields the address in apprise's form: https://appriseit.com/services/email/."""
    port = free_port()
    controller = Controller(_Mailbox(tell), hostname=HOST, port=port)
    controller.start()
    try:
        yield f"mailto://{HOST}:{port}?from={SENDER}&to={RECIPIENT}&mode=insecure&format=text"
    finally:
        controller.stop()


@dataclass(frozen=True)
class _Mailbox:
    tell: Tell

    async def handle_DATA(  # noqa: N802 (aiosmtpd looks for this name)
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        content = envelope.original_content or b""
        mail = message_from_bytes(content, policy=policy.default)
        body = mail.get_body(("plain", "html"))
        text = str(body.get_content()) if body is not None else ""
        readable = "\n".join(text.strip().splitlines())
        self.tell(Message("mail", str(mail["subject"] or ""), readable))
        return "250 OK"
