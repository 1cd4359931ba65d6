"""Checks of the database: version, clock, migrations, outboxes, sealing keys."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.clock import WallClock
from libs.common.migrate import DOORS, open_scripts
from libs.common.outbox import measure
from libs.common.rotation import count_by_key
from libs.common.service import Service
from services.cli.doctor.findings import Check, Finding, fail, ok, warn
from services.cli.doctor.installation import Installation

OLDEST_SERVER = 15
CLOCKS_MAY_DIFFER = timedelta(seconds=2)
OUTBOX_MAY_WAIT_S, OUTBOX_IS_STUCK_S = 60.0, 600.0


def checks(place: Installation) -> dict[str, Check]:
    """Every check of the database, by name."""
    found: dict[str, Check] = {"database": partial(look_at_server, place)}
    for service in place.services:
        found[f"migrations of {service.name}"] = partial(look_at_migrations, place, service)
        found[f"outbox of {service.name}"] = partial(look_at_outbox, service)
        if service.seals:
            found[f"keys of {service.name}"] = partial(look_at_keys, service, place.key_ids)
    return found


async def look_at_server(place: Installation) -> list[Finding]:
    """Reachable, not too old, and its clock near ours."""
    clock = WallClock()
    async with place.engine.connect() as connection:
        await connection.execute(
            text("select 1")
        )  # so that what follows measures the server and not the way in
        before = clock.now()
        asked = text("select clock_timestamp(), current_setting('server_version')")
        there, version = (await connection.execute(asked)).one()
        after = clock.now()
    offset = there - (before + (after - before) / 2)
    major = int(version.split(".")[0].split(" ")[0])
    if major < OLDEST_SERVER:
        remedy = f"Upgrade the server: Tides is tested from PostgreSQL {OLDEST_SERVER} on."
        server = warn("database", f"PostgreSQL {version} answers, and is old", remedy)
    else:
        server = ok("database", f"PostgreSQL {version} answers")
    return [server, compare_clocks("clock of the database", offset)]


def compare_clocks(check: str, offset: timedelta) -> Finding:
    """Whether a clock is near enough to this machine's."""
    seconds = offset.total_seconds()
    told = f"{seconds:+.1f} s from this machine's"
    if abs(offset) > CLOCKS_MAY_DIFFER:
        return warn(check, told, "Let both machines follow one time server (chrony, systemd-timesyncd).")
    return ok(check, told)


async def look_at_migrations(place: Installation, service: Service) -> list[Finding]:
    """Whether the schema is that of this program."""
    check = f"migrations of {service.name}"
    tables = {"alembic_version": service.migrations, "doors_version": DOORS}
    heads = {table: open_scripts(scripts).get_current_head() for table, scripts in tables.items()}
    async with place.engine.connect() as connection:
        there = {table: await _version(connection, service.name, table) for table in tables}
    told = ", ".join(f"{table.removesuffix('_version')} at {there[table] or 'nothing'}" for table in tables)
    if there == heads:
        return [ok(check, told)]
    if any(there[table] not in {None, *_known(scripts)} for table, scripts in tables.items()):
        return [
            fail(
                check, f"{told}: newer than this program", "Upgrade this program, or ask with the newer one."
            )
        ]
    wanted = ", ".join(str(head) for head in heads.values())
    return [fail(check, f"{told}; this program needs {wanted}", f"Run `tides migrate {service.name}`.")]


async def _version(connection: AsyncConnection, schema: str, table: str) -> str | None:
    name = f'"{schema}".{table}'
    if (await connection.execute(text("select to_regclass(:name)"), {"name": name})).scalar_one() is None:
        return None
    version: str | None = (
        await connection.execute(text(f"select version_num from {name}"))
    ).scalar_one_or_none()
    return version


def _known(scripts: str) -> set[str]:
    return {str(one.revision) for one in open_scripts(scripts).walk_revisions()}


async def look_at_outbox(service: Service) -> list[Finding]:
    """Whether what was said goes out."""
    check = f"outbox of {service.name}"
    async with service.database.transaction() as session:
        backlog = await measure(session)
    told = f"{backlog.waiting} waiting, the oldest for {backlog.oldest_s:.0f} s; {backlog.parked} parked"
    if backlog.parked:
        remedy = (
            "Search the log for `outbox.unpublishable`; mend the cause, then set the rows' parked_at to null."
        )
        return [fail(check, told, remedy)]
    if backlog.oldest_s > OUTBOX_IS_STUCK_S:
        return [fail(check, told, f"Nobody publishes: look whether {service.name} runs and reaches the bus.")]
    if backlog.oldest_s > OUTBOX_MAY_WAIT_S:
        return [warn(check, told, "Look at the bus: it takes messages slowly, or was away a moment ago.")]
    return [ok(check, told)]


async def look_at_keys(service: Service, key_ids: Sequence[str]) -> list[Finding]:
    """Which keys sealed what is stored, against those that are configured."""
    check = f"keys of {service.name}"
    used: dict[str, int] = {}
    for sealed in service.seals:
        for key_id, count in (await count_by_key(service.database, sealed)).items():
            used[key_id] = used.get(key_id, 0) + count
    told = (
        ", ".join(f"{count} sealed with {key_id}" for key_id, count in sorted(used.items()))
        or "nothing sealed"
    )
    lost = sorted(used.keys() - set(key_ids))
    if used and not key_ids:
        remedy = "Ask in the services' environment, with their TIDES_SEALING_KEYS, to compare."
        return [warn(check, f"{told}; this environment has no keys", remedy)]
    if lost:
        remedy = "Put these keys back into TIDES_SEALING_KEYS of every process (docs/keys.md)."
        return [fail(check, f"{told}; not configured: {', '.join(lost)}", remedy)]
    if older := sorted(used.keys() - set(key_ids[-1:])):
        remedy = "It follows the newest key within ten minutes of the restart; keep the old one until then."
        return [warn(check, f"{told}; still under an older key: {', '.join(older)}", remedy)]
    return [ok(check, told)]
