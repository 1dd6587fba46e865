"""Notification blocks, created from environment variables (`blocks.channels`).

The channels webhook and slack become Prefect's own block types, through which Prefect's server can
also send. Every other one (email, teams, …) takes any address that Apprise supports.
"""

import os
from collections.abc import Mapping

from prefect.blocks.core import Block
from prefect.blocks.notifications import (
    AppriseNotificationBlock,
    CustomWebhookNotificationBlock,
    SlackWebhook,
)
from pydantic import SecretStr

from blocks.channels import addresses, variable
from blocks.environment import own
from flows.errors import ConfigurationError


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
    return [_save(name, url) for name, url in addresses(environment).items()]


def _save(name: str, url: str) -> str:
    if not _is_known(url, is_webhook=name == "webhook"):
        raise ConfigurationError(
            f"{variable(name)} is not an address that messages can be sent to. Use a form that "
            "https://github.com/caronc/apprise/wiki lists (a webhook: http or https), or leave it "
            "empty."
        )
    _block(name, url).save(own(name), overwrite=True)
    return slug(name)


def slug(channel: str) -> str:
    """The block of a channel, e.g. apprise/email."""
    return f"{_kind(channel).get_block_type_slug()}/{own(channel)}"


def _kind(channel: str) -> type[Block]:
    kinds: dict[str, type[Block]] = {
        "webhook": CustomWebhookNotificationBlock,
        "slack": SlackWebhook,
    }
    return kinds.get(channel, Apprise)


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
    return _kind(name)(url=SecretStr(url))
