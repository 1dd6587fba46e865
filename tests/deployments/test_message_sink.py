"""The local receivers pass on every message, complete and readable."""

import smtplib
from collections.abc import Iterator, Mapping
from email.message import EmailMessage
from queue import Queue
from urllib.parse import urlsplit

import apprise
import pytest
import requests

from deployments.local.message_sink import Message, receiving

Told = Queue[Message]
SECONDS = 10


@pytest.fixture
def told() -> Told:
    """The received messages, in order."""
    return Queue()


@pytest.fixture
def channels(told: Told) -> Iterator[Mapping[str, str]]:
    """The variables that name the receivers."""
    with receiving(told.put) as variables:
        yield variables


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"subject": "elt failed", "text": "a\\nb"}', "subject: elt failed\ntext: a\nb"),
        (b'["not", "an object"]', '["not", "an object"]'),
        (b"not even JSON \xff", "not even JSON \ufffd"),
    ],
)
def test_what_is_posted_is_told(
    channels: Mapping[str, str], told: Told, body: bytes, text: str
) -> None:
    assert requests.post(channels["NOTIFY_WEBHOOK_URL"], data=body, timeout=SECONDS).ok
    assert told.get(timeout=SECONDS) == Message("webhook", "", text)


def test_a_mail_is_told_with_its_subject(channels: Mapping[str, str], told: Told) -> None:
    mail = EmailMessage()
    mail["Subject"] = "Größe"
    mail.set_content("zwölf\nrows")
    address = urlsplit(channels["NOTIFY_EMAIL_URL"])
    with smtplib.SMTP(str(address.hostname), int(address.port or 0)) as server:
        server.send_message(mail, "elt@example.com", ["you@example.com"])
    assert told.get(timeout=SECONDS) == Message("mail", "Größe", "zwölf\nrows")


def test_the_mail_address_is_one_that_apprise_sends_to(
    channels: Mapping[str, str], told: Told
) -> None:
    sender = apprise.Apprise()
    assert sender.add(channels["NOTIFY_EMAIL_URL"])
    assert sender.notify("one\ntwo", title="northwind failed")
    message = told.get(timeout=SECONDS)
    assert (message.channel, message.subject) == ("mail", "northwind failed")
    assert message.text.splitlines() == ["one", "two"]


def test_nobody_listens_afterwards() -> None:
    with receiving(lambda message: None) as variables:
        url = variables["NOTIFY_WEBHOOK_URL"]
        address = urlsplit(variables["NOTIFY_EMAIL_URL"])
    with pytest.raises(requests.ConnectionError):
        requests.post(url, timeout=SECONDS)
    with pytest.raises(ConnectionRefusedError):
        smtplib.SMTP(str(address.hostname), int(address.port or 0))
