"""A shop in PocketBase (https://pocketbase.io/docs/api-records): pages with a total, filters, JWTs.

Its login is a POST of an identity and a password, which answers with a token.
"""

import json
from dataclasses import dataclass

from flows.extract.auth import OAuth2
from flows.extract.paginators import page_number
from flows.extract.response import Response
from flows.extract.selectors import records_at
from flows.extract.tokens import Token, TokenRequest
from flows.source import Cursor, Params, Partition, Resource, RowsOf, Source, Window

OWNER = "owner@example.com"
PAGING = page_number("page", total_pages="totalPages")


@dataclass(frozen=True)
class Password(OAuth2):
    """Exchanges a password for a token, in PocketBase's own words."""

    def ask(self, secret: str, refresh_token: str) -> TokenRequest:
        return TokenRequest(self.token_url, json={"identity": self.client_id, "password": secret})

    def read(self, response: Response) -> Token | None:
        return Token(json.loads(response.body)["token"]) if response.is_success else None


def of_order(partition: Partition, _: Window) -> Params:
    """The lines of an order; ids are letters and digits only."""
    return {"perPage": 5, "sort": "number", "filter": f"order = '{partition.values['order_id']}'"}


def shop(url: str) -> Source:
    """The source, with its PocketBase at this address."""
    return Source(
        name="pocketbase",
        base_url=f"{url}api/collections/",
        login=Password(
            f"{url}api/collections/_superusers/auth-with-password", OWNER, "pocketbase-password"
        ),
        resources=(
            Resource(
                name="orders",
                path="orders/records",
                params={
                    "perPage": 10,
                    "sort": "updated,id",
                    "filter": "updated >= '{since:%Y-%m-%d %H:%M:%S}'",
                },
                records=records_at("items"),
                paging=PAGING,
                key=("id",),
                cursor=Cursor("updated"),
            ),
            Resource(
                name="lines",
                path="lines/records",
                params=of_order,
                records=records_at("items"),
                paging=PAGING,
                key=("id",),
                key_is_global=True,
                partitions=RowsOf("orders", {"order_id": "id"}),
                partition_columns=("order_id",),
            ),
        ),
    )
