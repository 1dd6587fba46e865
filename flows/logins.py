"""What signs the requests of a source: its login, or that of one of several accounts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from flows.errors import ConfigurationError
from flows.partitions import Partition


class Login(Protocol):
    """Authenticates requests (`flows.extract.auth`)."""

    @property
    def secret(self) -> str:
        """The name under which its secret is kept (`blocks.secrets`)."""

    @property
    def param(self) -> str:
        """The query parameter that holds the secret; empty where none does."""

    def sign(self, request: Any, value: str) -> None:
        """Add the secret's value to a request that is about to be sent."""


@dataclass(frozen=True)
class Accounts:
    """Several accounts of one API: a value of each partition names the account that it logs in as.

    Attributes:
        by_account: the login of each account, or several that sign together, by the account's name.
        column: the name of that value, and of its column in the raw tables.
    """

    by_account: Mapping[str, Login | tuple[Login, ...]]
    column: str = "account"

    def __post_init__(self) -> None:
        """Refuse accounts without a login, and two with the same one: they would be one account."""
        if not self.by_account:
            raise ConfigurationError(
                'Accounts names no account. Write e.g. Accounts({"eu": Bearer("shop-eu-token")}).'
            )
        known: dict[str, tuple[Login, ...]] = {}
        for name, login in self.logins.items():
            if not isinstance(name, str) or not name or not login or None in login:
                raise ConfigurationError(
                    f"Accounts: the account {name!r} has no login or no name. Write e.g. "
                    'Accounts({"eu": Bearer("shop-eu-token")}).'
                )
            if twin := next((other for other, its in known.items() if its == login), None):
                raise ConfigurationError(
                    f"Accounts: {twin!r} and {name!r} have the same login, so both would load the "
                    "same records. Name another secret in one of them."
                )
            known[name] = login

    @property
    def logins(self) -> dict[str, tuple[Login, ...]]:
        """All logins that sign the requests of each account."""
        return {
            account: login if isinstance(login, tuple) else (login,)
            for account, login in self.by_account.items()
        }

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """A partition per account, named as it is."""
        return tuple(Partition(account, {self.column: account}) for account in self.by_account)

    def account_of(self, partition: Partition) -> str:
        """The account that a partition's requests log in as.

        Raises:
            ConfigurationError: its value names none of them.
        """
        account = partition.values.get(self.column)
        if not isinstance(account, str) or account not in self.by_account:
            raise ConfigurationError(
                f"The partition {partition.name!r} has {self.column} {account!r}, which is none of "
                f"the source's accounts: {', '.join(self.by_account)}. Name one of them. If it "
                "comes from rows of an account that is gone, leave those out: "
                f"RowsOf(…, where={{{self.column!r}: {[*self.by_account]}}})."
            )
        return account
