"""Registering a lab's vCenter over REST, as an administrator would."""

from dataclasses import dataclass
from typing import Any

from tests.contract.providers.vsphere_target import NETWORK, TEMPLATE
from tests.support import until
from tests.system.lab import Lab
from tests.system.processes import Deployment

POLICY: dict[str, Any] = {
    "name": "quick",
    "cpu": {"idle": 0.5, "stop_new": 0.65, "reclaim": 0.8},
    "machine": {"template": "worker", "vcpus": 2, "memory_mib": 256, "disk_gib": 0.0005},
    "ladder": {
        "stop_new_after_s": 0.0,
        "suspend_after_s": 40.0,
        "drain_after_s": 40.0,
        "drain_grace_s": 20.0,
        "suspend": False,
    },
    "idle_dwell_s": 40.0,
    "busy_dwell_s": 20.0,
    "cooldown_s": 20.0,
    "rise_s": 20.0,
    "step_machines": 3,
    "stale_after_s": 60.0,
    "release": "destroy",
}
"""Constants of a patient policy divided by ten: the test's time runs twenty times as fast."""


PROCESSES: dict[str, tuple[str, ...]] = {
    "identity": ("identity",),
    "registry": ("registry",),
    "policy": ("policy",),
    "templates": ("templates",),
    "contribution": ("contribution",),
    "stats": ("stats",),
    "monitor-1": ("monitor",),
    "monitor-2": ("monitor",),
    "workload-1": ("workload",),
    "workload-2": ("workload",),
}
"""An installation of one process per service, whose monitor and workload are replicated."""


@dataclass
class Installed:
    """A registered resource with everything it needs to lend."""

    deployment: Deployment
    resource: dict[str, Any]
    policy: dict[str, Any]

    async def set_mode(self, mode: str) -> None:
        """How far Tides may go."""
        await self.deployment.ask(
            "registry", "POST", f"/v1/resources/{self.resource['id']}/mode", {"mode": mode}
        )

    async def clusters(self) -> list[dict[str, Any]]:
        """The resource's clusters as workload shows them."""
        query = f"/v1/clusters?resource_id={self.resource['id']}"
        items: list[dict[str, Any]] = (await self.deployment.ask("workload", "GET", query))["items"]
        return items

    async def cluster(self) -> dict[str, Any]:
        """Its only cluster as workload shows it."""
        (found,) = await self.clusters()
        return found

    async def press(self, button: str) -> None:
        """`pause` or `resume` its cluster, as a person."""
        path = f"/v1/clusters/{(await self.cluster())['id']}/{button}"
        await self.deployment.ask("workload", "POST", path, {"reason": "a test says so"})

    async def decisions(self, pages: int = 5) -> list[dict[str, Any]]:
        """The last decisions that changed something (up to 100 a page), oldest first."""
        found: list[dict[str, Any]] = []
        cursor = ""
        for _ in range(pages):
            page = await self.deployment.ask("workload", "GET", f"/v1/decisions?limit=100{cursor}")
            found += page["items"]
            if not page["next_cursor"]:
                break
            cursor = f"&cursor={page['next_cursor']}"
        return found[::-1]

    async def is_judged(self) -> bool:
        """Whether a decision about its first cluster stands."""
        clusters = await self.clusters()
        return bool(clusters and clusters[0]["decided_at"])

    async def machines(self) -> list[dict[str, Any]]:
        """Live machines as workload shows them."""
        items: list[dict[str, Any]] = (
            await self.deployment.ask("workload", "GET", "/v1/machines?limit=200")
        )["items"]
        return items

    async def events(self) -> list[dict[str, Any]]:
        """Every action event, oldest first."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = await self.deployment.ask("workload", "GET", f"/v1/events?limit=200{cursor}")
            found += page["items"]
            if len(page["items"]) < 200:
                return found
            cursor = f"&cursor={page['next_cursor']}"


async def install(
    deployment: Deployment, lab: Lab, *, policy: dict[str, Any], url: str | None = None
) -> Installed:
    """Register the vCenter (in observe), a policy, an approved template and a contribution.

    `url`: where something stands before the vCenter.
    """
    given = {
        "name": "lab",
        "provider": "vsphere",
        "url": url or lab.vcsim.url,
        "username": lab.vcsim.username,
        "password": lab.vcsim.password,
        "ca_pem": lab.vcsim.ca_file.read_text(),
        "settings": {"network": NETWORK},
        "interval_s": 1,
    }
    resource = await deployment.ask("registry", "POST", "/v1/resources", given)
    made = await deployment.ask("policy", "POST", "/v1/policies", policy)
    scope = {"scope": "resource", "scope_id": resource["id"]}
    path = f"/v1/policies/{made['id']}/assignments"
    await until(lambda: _accepted(deployment, path, scope), timeout=30, what="policy knows the resource")
    template = {"name": "worker", "resource_id": resource["id"], "reference": TEMPLATE}
    await until(lambda: _template(deployment, template), timeout=30, what="templates knows the resource")
    project = {"name": "Lab", "url": "https://boinc.example.org/lab/"}
    made_project = await deployment.ask("contribution", "POST", "/v1/projects", project)
    contribution = {"project_id": made_project["id"], "weight": 1, "authenticator": f"1_{'a' * 32}"}
    await deployment.ask("contribution", "POST", "/v1/contributions", contribution)
    return Installed(deployment, resource, made)


async def _accepted(deployment: Deployment, path: str, body: dict[str, Any]) -> bool:
    answer = await deployment.ask("policy", "POST", path, body, expect=(200, 201, 404, 422))
    return "policy_id" in answer


async def _template(deployment: Deployment, body: dict[str, Any]) -> bool:
    answer = await deployment.ask("templates", "POST", "/v1/templates", body, expect=(200, 201, 404, 422))
    if "id" not in answer:
        return False
    await deployment.ask("templates", "POST", f"/v1/templates/{answer['id']}/versions/1/approve")
    return True
