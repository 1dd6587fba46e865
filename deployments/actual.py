"""The actual state of the Prefect server. Read-only; lists are complete, not paged."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import Automation
from prefect.exceptions import ObjectNotFound

PAGE = 100
Item = TypeVar("Item")


def deployments(
    client: SyncPrefectClient, project: str, names: Sequence[str]
) -> dict[str, DeploymentResponse]:
    """The project's deployments by flow/name: those with its tag, and any others in `names`."""
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[project]))
    listed = _read_all(partial(client.read_deployments, deployment_filter=tagged))
    flows = {each.flow_id: client.read_flow(each.flow_id).name for each in listed}
    found = {f"{flows[each.flow_id]}/{each.name}": each for each in listed}
    for name in names:
        if name not in found and (other := deployment(client, name)):
            found[name] = other
    return found


def deployment(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def automations(client: SyncPrefectClient) -> list[Automation]:
    """All automations, including those of other projects."""
    return _read_all(client.read_automations)


def _read_all(read: Callable[..., list[Item]]) -> list[Item]:
    """All items of a client call that returns them in pages."""
    listed: list[Item] = []
    while len(listed) % PAGE == 0 and (page := read(limit=PAGE, offset=len(listed))):
        listed += page
    return listed


def block(client: SyncPrefectClient, slug: str) -> UUID | None:
    """The id of a block by its slug, e.g. custom-webhook/webhook."""
    kind, _, name = slug.partition("/")
    try:
        return client.read_block_document_by_name(name, kind, include_secrets=False).id
    except ObjectNotFound:
        return None


def pool(client: SyncPrefectClient, name: str) -> WorkPool | None:
    try:
        return client.read_work_pool(name)
    except ObjectNotFound:
        return None


def has_pool(client: SyncPrefectClient, name: str) -> bool:
    return pool(client, name) is not None
