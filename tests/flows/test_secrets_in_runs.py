"""A login that an API repeats is in nothing that Prefect keeps of the failed run."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.logging.handlers import APILogWorker

from flows import sources
from flows.elt import elt
from flows.extract.auth import Bearer, OAuth2
from flows.extract.selectors import records_at
from flows.page import Page
from flows.source import Login, Resource, Source
from tests.http_servers import Answer, Asked, Server

Ask = Callable[..., list[tuple[Any, ...]]]
WORD = "cAn4ryW0rd"


def careless(page: Page) -> Any:
    """Quotes the answer in an error, and in its cause."""
    try:
        raise KeyError(page.body.decode())
    except KeyError as error:
        raise ValueError(f"no items in {page.body.decode()}") from error


SHOP = (
    Resource("own_function", "own", careless, key=("id",)),
    Resource("not_json", "text", records_at("items"), key=("id",)),
    Resource("rejected", "items", records_at("items"), key=("id",)),
    Resource("refused", "items", records_at("items"), key=("v",), columns={"v": "integer"}),
    Resource("fields", "keys", records_at("items")),
)


def answer(asked: Asked) -> Answer:
    if asked == "/token":
        tokens = {"access_token": f"{WORD}-access", "refresh_token": f"{WORD}-refresh"}
        return Answer(json.dumps(tokens).encode())
    sent = asked.headers["Authorization"]
    said = {
        "/own": sent,
        "/text": f"<p>{sent}",
        "/items": f'{{"items": [{{"v": "{sent}"}}]}}',
        "/keys": f'{{"items": [{{"{sent}": 1}}]}}',
    }
    return Answer(said[asked].encode())


def kept(prefect: SyncPrefectClient, run_id: UUID) -> Iterator[str]:
    """Everything in Prefect's API about a run: states, task runs, logs and artifacts."""
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    yield prefect.read_flow_run(run_id).model_dump_json()
    for task_run in prefect.read_task_runs(flow_run_filter=of_run):
        yield task_run.model_dump_json()
    artifacts = prefect.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    )
    for artifact in artifacts:
        yield artifact.model_dump_json()
    logs = prefect.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id])))
    for log in logs:
        yield log.model_dump_json()


def bearer(_: str) -> Login:
    return Bearer("shop-key")


def refreshed(url: str) -> Login:
    return OAuth2(f"{url}token", "shop", "shop-key", refresh_token="shop-refresh-token")


@pytest.mark.parametrize("login_at", [bearer, refreshed])
def test_prefect_keeps_no_secret_of_a_run_that_failed(
    serve: Callable[[Callable[[Asked], Answer]], Server],
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    login_at: Callable[[str], Login],
) -> None:
    monkeypatch.setenv("SHOP_KEY", f"{WORD}/{WORD}")
    Secret(value=f"{WORD}-first").save("shop-refresh-token", overwrite=True)
    server = serve(answer)
    login = login_at(server.url)
    shop = Source("shop", server.url, SHOP, login)
    monkeypatch.setattr(sources, "find", lambda name: shop)

    state: Any = elt(source="shop", transform=False, return_state=True)

    assert state.is_failed()
    APILogWorker.drain_all()
    with get_client(sync_client=True) as prefect:
        texts = list(kept(prefect, state.state_details.flow_run_id))
    said = "\n".join(texts)
    assert "Traceback" in said
    assert "function failed in careless" in said
    assert "loads-shop" in said
    assert said.count("***") > len(SHOP)
    assert [text for text in texts if WORD in text] == []
    assert ask("select count(*) from elt.loads where state = 'failed'") == [(5,)]
    assert WORD not in str(ask("select l::text, r::text from elt.loads l, elt.rejects r"))
    stored = str(ask("select t::text from elt.refresh_tokens t"))
    assert ("shop-refresh-token" in stored, WORD in stored) == (login_at is refreshed, False)
    assert server.asked.count(Asked("/token")) == (login_at is refreshed)
