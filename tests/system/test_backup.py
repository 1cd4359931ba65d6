"""The restore drill: an installation is lost and comes back in a fresh database; its machines are still its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from services.cli.backup.work import restore_backup, take_backup
from services.cli.client import Failed
from tests.faultproxy import FaultProxy
from tests.service.whole_house import TICK_REAL_S, Cloudy, open_whole
from tests.support import until
from tests.system.lab import Lab, owners
from tools.parts.postgres import PostgresServer
from tools.parts.vcsim import Vcsim

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("backup")]

SAME = ("sealing_keys", "signing_key", "verify_keys", "bootstrap_admin_token", "installation_id")


async def test_a_lost_installation_goes_on_from_its_backup_and_no_machine_dies(
    database_url: str, private_postgres: PostgresServer, vcsim: Vcsim, tmp_path: Path
) -> None:
    async with owners(vcsim) as lab, FaultProxy.before(vcsim) as before:
        lab.second_s = TICK_REAL_S
        async with open_whole(database_url) as whole:
            cloudy = Cloudy(whole, lab, before)
            await lend_two(cloudy)
            known = {machine["id"]: machine["name"] for machine in await cloudy.machines()}
            told = [event["id"] for event in await whole.items("/v1/events?limit=200")]
            await take_backup(whole.settings, tmp_path / "backup")
            await scale(cloudy, None)
            await until(lambda: all_run(lab, 3), timeout=60, what="a machine younger than the backup")
        there = {vm.name for vm in await lab.ours()}

        fresh_url = await private_postgres.create_database("fresh")
        settings = whole.settings.model_copy(update={"database_url": SecretStr(fresh_url)})
        await restore_backup(settings, tmp_path / "backup")
        same = {name: getattr(whole.settings, name) for name in SAME}
        async with open_whole(fresh_url, **same) as again:
            cloudy = replace(cloudy, whole=again)
            await it_goes_on(cloudy, known, told)
            assert {vm.name for vm in await lab.ours()} == there
            with pytest.raises(Failed, match="stop every process first"):
                await restore_backup(settings, tmp_path / "backup", replace=True)


async def lend_two(cloudy: Cloudy) -> None:
    """Two machines, because a person said so."""
    await cloudy.register()
    await cloudy.supply()
    await until(cloudy.clusters, timeout=30, what="a cluster")
    await scale(cloudy, 2)
    await cloudy.set_mode("lend")
    await until(lambda: all_run(cloudy.lab, 2), timeout=60, what="two machines")
    await until(lambda: are_running(cloudy, 2), timeout=30, what="two that run")


async def it_goes_on(cloudy: Cloudy, known: dict[str, str], told: list[str]) -> None:
    """Machines are adopted, a person is asked about the younger one, and the owner is given way to."""
    stopped = await until(lambda: sweeper(cloudy), timeout=30, what="a sweeper that has looked")
    assert stopped == (
        "restored from a backup: 1 machines with our mark are in no row of this database, which knows 2;"
        " they may be younger than it"
    )
    assert await are_running(cloudy, 2)
    assert {machine["id"]: machine["name"] for machine in await cloudy.machines()} == known
    (asked,) = await cloudy.events("sweep_stopped")
    assert asked["body"]["orphans"] == 1

    cloudy.lab.set_owner(0.75)
    mine = set(known.values())

    async def is_cut() -> bool:
        return all(vm.limit_mhz <= 400 for vm in await cloudy.lab.ours() if vm.name in mine)

    await until(is_cut, timeout=60, what="limits cut for the owner")
    events = await cloudy.whole.items("/v1/events?limit=200")
    ids = [event["id"] for event in events]
    assert ids[: len(told)] == told, "what was told is told in the same order, before what came since"
    assert len(set(ids)) == len(ids) > len(told)
    for schema in ("registry", "workload", "monitor", "contribution"):
        left = f"select count(*) as n from {schema}.outbox where created_at < now() - interval '10 s'"
        assert (await cloudy.whole.fetch(left))[0]["n"] == 0
    assert await cloudy.whole.run.bus.dead() == []


async def scale(cloudy: Cloudy, most: int | None) -> None:
    """Never more than so many."""
    (cluster,) = (await cloudy.clusters()).values()
    await cloudy.whole.made(f"/v1/clusters/{cluster['id']}/scale", {"most_machines": most})


async def sweeper(cloudy: Cloudy) -> Any:
    """Why it waits, once it has looked at the cloud."""
    (cluster,) = (await cloudy.clusters()).values()
    reason = cluster["sweep_stopped"]
    return reason if reason != "restored from a backup" else None


async def are_running(cloudy: Cloudy, count: int) -> bool:
    """By the installation's word."""
    return [machine["state"] for machine in await cloudy.machines()] == ["running"] * count


async def all_run(lab: Lab, count: int) -> bool:
    """By the cloud's."""
    vms = await lab.ours()
    return len(vms) == count and all(vm.is_on for vm in vms)
