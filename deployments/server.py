"""What the Prefect server has: read only, whole lists at once."""

from collections.abc import Sequence
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import Automation
from prefect.exceptions import ObjectNotFound

PAGE = 100


def deployments(
    client: SyncPrefectClient, project: str, names: Sequence[str]
) -> dict[str, DeploymentResponse]:
    """The project's deployments on the server, and those of the names though not tagged."""
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[project]))
    listed: list[DeploymentResponse] = []
    while len(listed) % PAGE == 0:
        page = client.read_deployments(deployment_filter=tagged, limit=PAGE, offset=len(listed))
        listed += page
        if not page:
            break
    flows = {each.flow_id: client.read_flow(each.flow_id).name for each in listed}
    found = {f"{flows[each.flow_id]}/{each.name}": each for each in listed}
    for name in names:
        if name not in found and (other := deployment(client, name)):
            found[name] = other
    return found


def deployment(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    """By flow/name; None where there is none."""
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def automations(client: SyncPrefectClient) -> list[Automation]:
    """All of them, whoever made them."""
    there: list[Automation] = []
    while len(there) % PAGE == 0:
        page = client.read_automations(limit=PAGE, offset=len(there))
        there += page
        if not page:
            break
    return there


def block(client: SyncPrefectClient, slug: str) -> UUID | None:
    """A block's id by its slug, e.g. custom-webhook/webhook; None where there is none."""
    kind, _, name = slug.partition("/")
    try:
        return client.read_block_document_by_name(name, kind, include_secrets=False).id
    except ObjectNotFound:
        return None


def has_pool(client: SyncPrefectClient, name: str) -> bool:
    """Whether there is a work pool of that name."""
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        return False
    return True
