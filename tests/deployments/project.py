"""A small test project on the tests' Prefect server, with its own files, tag and pool."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import Automation

from deployments import actual, deploy


@dataclass
class Project:
    """`make deploy` and `make deploy-plan` for a test's own files.

    Attributes:
        name: of the project, its tag and its work pool.
    """

    root: Path
    name: str
    client: SyncPrefectClient

    def write(self, deployments: str, automations: str = "automations: []") -> None:
        """Declare deployments, as written below `deployments:`, and automations."""
        text = f"name: {self.name}\ndeployments:\n{deployments}"
        (self.root / "prefect.yaml").write_text(text.replace("TAG", self.name))
        file = self.root / "deployments" / "automations.yaml"
        file.write_text(automations.replace("TAG", self.name))

    def deploy(self) -> list[str]:
        """Deploy, and return the printed changes."""
        return self._run(deploy.deploy)

    def plan(self) -> list[str]:
        """The printed changes of a plan."""
        return self._run(deploy.plan)

    def _run(self, act: Callable[..., object]) -> list[str]:
        said: list[str] = []
        with deploy.inside(self.root):
            act(self.client, self.root, said.append)
        quiet = ("Blocks saved", "See ", "Nothing runs yet")
        return [line for line in said if not line.startswith(quiet)]

    def deployment(self, name: str) -> DeploymentResponse:
        """A deployment as the server has it; the flow is the first word of its name."""
        flow = name.partition("-")[0]
        return self.client.read_deployment_by_name(f"{self.name} {flow}/{name}")

    def deployments(self) -> list[str]:
        """The names of the server's deployments with the project's tag."""
        found = actual.deployments(self.client, self.name, [])
        return sorted(each.name for each in found.values())

    def automations(self) -> dict[str, Automation]:
        """The server's automations with the project's tag, by name."""
        found = actual.automations(self.client)
        return {each.name: each for each in found if self.name in each.tags}
