"""Sites: where resources stand, and what their clouds show or their owners declare."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from libs.common.auth import Role, Signer, generate_signing_keys
from libs.common.contracts.resource import ClusterFacts, HostFacts, InventoryChanged
from libs.common.ids import cluster_id
from libs.common.runner import running
from libs.common.secrets import fresh_key
from libs.common.settings import Settings
from libs.providers.simulated import driver
from services.cli.demo.sites import SITES, resource_at
from services.cli.run import builders
from tests.service.identity_support import ShiftedClock
from tests.service.lone_service import THEIRS, Lone
from tests.service.registry_house import PASSWORD, body, patch, register, states
from tests.service.whole_house import Whole
from tests.support import until

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DECLARED = {"hosts": 3, "cores": 24, "memory_gib": 96.5, "gpus": 2}


async def test_the_balticlsc_network_adds_up(database_url: str) -> None:
    """Its five sites, registered as the demo does: monitor looks at the clouds, registry adds up."""
    private, verify_keys = generate_signing_keys()
    given = {"database_url": database_url, "verify_keys": verify_keys, "port": 0, "pool_size": 2}
    settings = Settings.model_validate(given | {"sealing_keys": f"k1:{fresh_key()}"})
    async with (
        running(builders(("registry", "monitor")), settings) as run,
        aiohttp.ClientSession() as http,
    ):
        house = Whole(run, settings, Signer(private), http, ShiftedClock())
        for site, kinds in SITES.items():
            await house.made("/v1/resources", resource_at(site, kinds, PASSWORD, 20))

        async def added_up() -> Any:
            found = (await house.ask("GET", "/v1/sites")).body
            return found if found["total"]["hosts"] == 48 else None

        found = await until(added_up, 60, "all hosts to be seen")
        shown = {
            one["name"]: (one["hosts"], one["cores"], one["memory_gib"], one["gpus"])
            for one in found["items"]
        }
        assert shown == {
            "WUT": (6, 80, 768, 8),
            "IMCS": (2, 8, 16, 0),
            "RISE": (30, 1740, 6936, 216),
            "MTC": (5, 96, 288, 4),
            "TSP": (5, 36, 88, 1),
        }
        total = found["total"]
        assert (total["cores"], total["memory_gib"], total["gpus"]) == (1960, 8096, 229)
        assert (total["hosts_of_unknown_gpus"], total["classes"]) == (
            0,
            {"low": 17, "medium_gpu": 1, "hpc_gpu": 30},
        )
        (rise,) = (await house.ask("GET", "/v1/sites/rise")).body["standing"]
        assert (rise["name"], rise["source"], rise["gpus"]) == ("RISE", "seen", 216)
    for site in SITES:
        driver.forget_cloud(f"sim://balticlsc-{site.lower()}")


def seen(resource_id: str, *gpus: int | None) -> InventoryChanged:
    hosts = tuple(HostFacts(f"h{n}", f"h{n}", 20_800.0, 65_536.0, 8, gpus=one) for n, one in enumerate(gpus))
    cluster = ClusterFacts(cluster_id(uuid4(), "c"), "c", "c", hosts)
    return InventoryChanged(at=NOW, revision=1, resource_id=resource_id, clusters=(cluster,))


async def test_what_is_seen_counts_and_else_what_is_declared(registry: Lone, url: str) -> None:
    made = await register(registry, body(url, site=" Wien Süd ", declared=DECLARED))
    assert (made["site"], made["declared"]) == ("Wien Süd", DECLARED)
    await registry.hear(1)
    assert states(registry)[-1].site == "Wien Süd"
    await register(registry, body(f"sim://{uuid4().hex}", site="WIEN SÜD"))
    other = await register(registry, body(f"sim://{uuid4().hex}", site="Graz"))
    await register(registry, body(f"sim://{uuid4().hex}"))
    await registry.tell(seen(other["id"], 5, None, 0))

    async def sites(**who: Any) -> Any:
        return (await registry.ask("GET", "/v1/sites", **who)).body

    sizes = (await registry.ask("GET", f"/v1/resources/{other['id']}/sizes", role=Role.VIEWER)).body
    assert sizes["items"] == sizes["clusters"][0]["items"]
    assert [(one["name"], one["vcpus"], one["cpu_mhz"]) for one in sizes["items"]] == [
        ("whole", 7, 18_200.0),
        ("half", 4, 10_400.0),
        ("quarter", 2, 5_200.0),
        ("eighth", 1, 2_600.0),
    ]

    graz, wien = (await sites(role=Role.VIEWER))["items"]
    assert (wien["name"], wien["resources"], wien["hosts"], wien["cores"]) == ("Wien Süd", 2, 3, 24)
    assert (wien["memory_gib"], wien["gpus"], wien["classes"]) == (96.5, 2, {})
    assert (graz["hosts"], graz["gpus"], graz["hosts_of_unknown_gpus"]) == (3, 5, 1)
    assert graz["classes"] == {"low": 1, "hpc_gpu": 1}
    assert (await sites(role=Role.VIEWER))["total"]["hosts"] == 6
    standing = (await registry.ask("GET", "/v1/sites/wien%20s%C3%BCd")).body["standing"]
    assert [one["source"] for one in standing] == ["declared", "unknown"]

    assert (await sites(role=Role.VIEWER, organisation=THEIRS))["items"] == []
    assert (await registry.ask("GET", "/v1/sites/Graz", role=Role.VIEWER, organisation=THEIRS)).status == 404

    moved = await patch(registry, made, {"site": "graz", "declared": {**DECLARED, "gpus": None}})
    assert (moved.status, moved.body["site"]) == (200, "graz")
    await registry.tell(seen(made["id"], 1))
    graz = (await registry.ask("GET", "/v1/sites/GRAZ")).body
    assert (graz["resources"], graz["hosts"], graz["gpus"]) == (2, 4, 6)
    gone = await patch(registry, made, {"site": None, "declared": None})
    assert (gone.body["site"], gone.body["declared"]) == (None, None)
    await registry.hear(6)
    assert states(registry)[-1].site == ""


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"site": ""}, "site"),
        ({"site": "a\nb"}, "site"),
        ({"site": "a/b"}, "site"),
        ({"site": "x" * 101}, "site"),
        ({"site": 7}, "site"),
        ({"declared": {**DECLARED, "hosts": -1}}, "declared.hosts"),
        ({"declared": {**DECLARED, "memory_gib": "NaN"}}, "declared.memory_gib"),
        ({"declared": {"cores": 1}}, "declared.hosts"),
        ({"declared": {**DECLARED, "sockets": 2}}, "declared.sockets"),
    ],
)
async def test_a_site_that_cannot_be_is_refused(
    registry: Lone, url: str, given: dict[str, Any], field: str
) -> None:
    refused = await registry.ask("POST", "/v1/resources", body(url, **given))
    assert (refused.status, refused.field) == (422, field), refused.body
