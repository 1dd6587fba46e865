"""Notification blocks, created from environment variables.

NOTIFY_<NAME>_URL is a channel. WEBHOOK and SLACK become Prefect's own block types, through which
Prefect's server can also send. Every other name (EMAIL, TEAMS, …) takes any address that Apprise
supports.
"""

import os
import re
from collections.abc import Mapping

from prefect.blocks.core import Block
from prefect.blocks.notifications import (
    AppriseNotificationBlock,
    CustomWebhookNotificationBlock,
    SlackWebhook,
)
from pydantic import SecretStr

from flows.errors import ConfigurationError

VARIABLE = re.compile(r"NOTIFY_([A-Z0-9]+(?:_[A-Z0-9]+)*)_URL")


class Apprise(AppriseNotificationBlock):
    """Send through any service that Apprise supports, including e-mail.

    The address is a secret: it may hold a password. Its forms are listed on
    https://github.com/caronc/apprise/wiki, e.g. mailtos://user:password@smtp.example.com?to=….
    """

    _block_type_name = "Apprise"
    _block_type_slug = "apprise"


def save(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Create or update the block of every channel in the environment; returns their slugs.

    Raises:
        ConfigurationError: when Apprise does not support an address.
    """
    channels = {
        found.group(1): url
        for variable, url in sorted(environment.items())
        if (found := VARIABLE.fullmatch(variable)) and url
    }
    return [_save(name, url) for name, url in channels.items()]


def _save(channel: str, url: str) -> str:
    name = channel.lower().replace("_", "-")
    if not _is_known(url, is_webhook=name == "webhook"):
        raise ConfigurationError(
            f"NOTIFY_{channel}_URL is not an address that messages can be sent to. Use a form that "
            "https://github.com/caronc/apprise/wiki lists (a webhook: http or https), or leave it "
            "empty."
        )
    block = _block(name, url)
    block.save(name, overwrite=True)
    return f"{block.get_block_type_slug()}/{name}"


def _is_known(url: str, is_webhook: bool) -> bool:
    from apprise import Apprise as Channels

    return url.startswith(("http://", "https://")) if is_webhook else Channels().add(url)


def _block(name: str, url: str) -> Block:
    if name == "webhook":
        return CustomWebhookNotificationBlock(
            name=name,
            url="{{url}}",
            json_data={"subject": "{{subject}}", "text": "{{body}}"},
            secrets={"url": url},
        )
    if name == "slack":
        return SlackWebhook(url=SecretStr(url))
    return Apprise(url=SecretStr(url))
