"""`tides doctor` on a whole installation: well, ailing in many ways at once, and with a bus that hangs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from libs.common.bus.base import Message
from libs.common.contracts.resource import ResourceRecovered
from libs.common.secrets import fresh_key
from libs.providers.simulated import create_cloud
from libs.providers.simulated import driver as simulated
from services.cli.access import Access
from services.cli.doctor import examine_all
from services.cli.doctor.findings import Finding, Grade
from services.cli.run import SERVICES
from tests.service.whole_house import PASSWORD, Whole, open_whole
from tests.support import until

WITHIN_S = 60.0
Found = dict[str, Finding]


async def look(within_s: float = WITHIN_S) -> Found:
    """The findings by check; of several of one check the worst."""
    order = [Grade.OK, Grade.WARN, Grade.FAIL]
    found = await examine_all(Access(), within_s)
    return {one.check: one for one in sorted(found, key=lambda one: order.index(one.grade))}


def bad(found: Found) -> dict[str, Grade]:
    return {name: one.grade for name, one in found.items() if one.grade is not Grade.OK}


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """Takes connections and never says a word."""

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def surround(whole: Whole, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    """The environment of an operator on the machine; every secret in it."""
    settings = whole.settings
    assert settings.bootstrap_admin_token is not None
    secrets = {
        "TIDES_SEALING_KEYS": settings.sealing_keys.get_secret_value(),
        "TIDES_TOKEN": settings.bootstrap_admin_token.get_secret_value(),
    }
    places = {
        "TIDES_DATABASE_URL": settings.database_dsn,
        "TIDES_BUS_URL": settings.bus_dsn,
        "TIDES_URL": whole.run.url,
        "TIDES_DATA_DIR": str(folder),
    }
    for name, value in {**secrets, **places}.items():
        monkeypatch.setenv(name, value)
    return [secrets["TIDES_TOKEN"], secrets["TIDES_SEALING_KEYS"].partition(":")[2], PASSWORD]


async def _until_it_is(is_so: Callable[[Found], bool], what: str) -> Found:
    async def look_again() -> Found | None:
        found = await look()
        return found if is_so(found) else None

    found: Found = await until(look_again, timeout=60, what=what)
    return found


async def test_a_well_house_what_ails_it_and_a_bus_that_hangs(
    database_url: str, amqp_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cloud = create_cloud(f"sim://{uuid4().hex}", PASSWORD)
    async with open_whole(database_url, bus_url=amqp_url) as whole:
        secrets = surround(whole, monkeypatch, tmp_path)
        given = {
            "name": "Lab",
            "provider": "simulated",
            "url": cloud.url,
            "username": "t",
            "password": PASSWORD,
        }
        await whole.made("/v1/resources", given)
        well = await _until_it_is(lambda found: not bad(found), "nothing to find")
        _check_well(well)

        await _make_ill(whole)
        monkeypatch.setenv("TIDES_SEALING_KEYS", f"k2:{fresh_key()}")
        ill = await _until_it_is(lambda found: found["dead letters"].grade is Grade.FAIL, "the dead letter")
        _check_ill(ill)

        async with silent_server() as port:
            monkeypatch.setenv("TIDES_BUS_URL", f"amqp://tides:hunter2@127.0.0.1:{port}/")
            deaf = await look(within_s=5)
        hung = {name for name, one in deaf.items() if one.what == "no answer within 5 s"}
        assert hung >= {"bus", "queues", "dead letters"}, "the rest is told all the same"
        assert deaf.keys() >= {"database", "identity", "resource Lab", "outbox of stats", "services"}
    said = str([*well.values(), *ill.values(), *deaf.values()])
    assert [secret for secret in (*secrets, "hunter2") if secret in said] == []
    assert list(tmp_path.iterdir()) == []
    simulated.forget_cloud(cloud.url)


def _check_well(well: Found) -> None:
    for name in SERVICES:
        assert well[f"migrations of {name}"].what.startswith("alembic at 00")
        assert "consumers" in well[f"queues of {name}"].what
    assert well["keys of registry"].what == "1 sealed with k1"
    assert well["database"].what.startswith("PostgreSQL ")
    assert well["dead letters"].what == "none"
    assert "ready, version" in well["services"].what
    assert {"clock of the database", "clock of the bus", "clock of Lab", "identity", "program"} <= well.keys()


def _check_ill(ill: Found) -> None:
    assert bad(ill) == dict.fromkeys(
        (
            "dead letters",
            "keys of monitor",
            "keys of registry",
            "keys of templates",
            "keys of workload",
            "migrations of policy",
            "outbox of stats",
            "resource Lab",
        ),
        Grade.FAIL,
    )
    assert ill["dead letters"].what == "1: 1 of registry.resource.recovered.v1"
    assert "tides dead retry" in ill["dead letters"].remedy
    assert ill["keys of registry"].what == "1 sealed with k1; not configured: k1"
    assert ill["migrations of policy"].remedy == "Run `tides migrate policy`."
    assert "1 parked" in ill["outbox of stats"].what
    assert ill["resource Lab"].what.startswith("degraded since ")


async def _make_ill(whole: Whole) -> None:
    """A message that nobody can read, an event that nobody can publish, an old schema, a cloud that refuses."""
    await whole.run.bus.publish(Message("bad", ResourceRecovered.key, b"{}", {}))
    for statement in (
        "insert into stats.outbox (message_id, key, body, headers, public, parked_at)"
        " values (gen_random_uuid(), 'x.y.v1', '', '{}', false, now())",
        "update policy.alembic_version set version_num = '0001'",
        "update registry.resource set health = 'degraded', health_cause = 'auth', health_at = now()",
    ):
        await whole.fetch(statement)
