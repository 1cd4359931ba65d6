"""A project's statistics files, once a day: whom it has deleted, and credit of those whose account is not stored."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

import structlog

from libs.boinc.web import (
    HostCredit,
    NoSuchFile,
    NotFound,
    ProjectClient,
    ProjectDown,
    ProjectRefused,
    ProjectUnavailable,
    StatsFile,
    StatsKind,
    host_of,
)
from services.contribution.reconcile.means import Means
from services.contribution.usecases import credit, visiting
from services.contribution.usecases.credit import Owner
from services.contribution.usecases.visiting import STATS_LEASE, KnownUser, Turn

log = structlog.get_logger(__name__)

MOST_HOSTS = 200_000
"""Of our users, at one project."""


@dataclass(slots=True)
class _Reading:
    """One reading of a project's files."""

    means: Means
    turn: Turn
    project: ProjectClient
    users: list[KnownUser]
    granted: float = 0.0


async def read_statistics(means: Means, turn: Turn, project: ProjectClient) -> float:
    """Read what has changed; the answer is the credit that machines of ours were granted since.

    What does not come is tried again in a day, and is seen till then. Raises LeaseLost.
    """
    async with means.database.transaction() as session:
        before = dict((await visiting.hold(session, turn, STATS_LEASE)).etags)
        users = await visiting.known_users(session, means.vault, turn.project_id)
    reading = _Reading(means, turn, project, users)
    readers: Mapping[StatsKind, Callable[[_Reading, StatsFile], Awaitable[None]]] = {
        StatsKind.DELETED_HOSTS: _forget_hosts,
        StatsKind.DELETED_USERS: _forget_users,
        StatsKind.HOSTS: _count_hosts,
    }
    etags, trouble = {}, None
    for kind, read in readers.items():
        wanted = _wanted(kind, users)
        if wanted is not None and not wanted:
            continue
        try:
            async with project.stats(kind, before.get(kind.value, ""), wanted) as file:
                if file is not None:
                    await read(reading, file)
                    etags[kind.value] = file.etag
        except NoSuchFile:
            continue
        except (ProjectUnavailable, ProjectDown) as error:
            trouble = f"{kind}: {error}"
    async with means.database.transaction() as session:
        await visiting.end_stats(session, turn, etags, trouble, means.clock.now())
    return reading.granted


def _wanted(kind: StatsKind, users: list[KnownUser]) -> frozenset[int] | None:
    """Whose hosts are read: those of users whose account is not stored, for that tells them sooner."""
    if kind is not StatsKind.HOSTS:
        return None
    return frozenset(user.user_id for user in users if user.account_id is None)


async def _count_hosts(reading: _Reading, file: StatsFile) -> None:
    told: dict[int, list[HostCredit]] = {}
    count = 0
    async for record in file.records:
        count += 1
        if count > MOST_HOSTS:
            raise ProjectUnavailable("There are more hosts of our users than anybody has.")
        told.setdefault(record.integer("userid"), []).append(host_of(record))
    now = reading.means.clock.now()
    async with reading.means.database.transaction() as session:
        await visiting.hold(session, reading.turn, STATS_LEASE)
        for user in reading.users:
            if user.account_id is None and user.user_id in told:
                owner = Owner(reading.turn.project_id, user.organisation_id, user.user_id)
                reading.granted += await credit.count_credit(session, owner, told[user.user_id], now)


async def _forget_hosts(reading: _Reading, file: StatsFile) -> None:
    database, project_id = reading.means.database, reading.turn.project_id
    async with database.transaction() as session:
        known = await credit.known_hosts(session, project_id)
    gone = {record.integer("id") async for record in file.records} & known
    async with database.transaction() as session:
        await visiting.hold(session, reading.turn, STATS_LEASE)
        await credit.forget_hosts(session, project_id, gone)


async def _forget_users(reading: _Reading, file: StatsFile) -> None:
    """Take a deletion for one only where the project does not know the user any more when it is asked."""
    known = {user.user_id for user in reading.users if user.user_id > 0}
    gone = {record.integer("id") async for record in file.records} & known
    for user in reading.users:
        if user.user_id not in gone:
            continue
        if not await _is_gone(reading, user):
            log.warning("project.deletion_doubted", project=str(reading.turn.project_id), user=user.user_id)
            continue
        async with reading.means.database.transaction() as session:
            await visiting.hold(session, reading.turn, STATS_LEASE)
            now = reading.means.clock.now()
            await credit.forget_user(session, reading.turn.project_id, user, now)


async def _is_gone(reading: _Reading, user: KnownUser) -> bool:
    strong_key = await _strong_key(reading, user.account_id)
    try:
        if strong_key:
            await reading.project.account(strong_key)
        else:
            await reading.project.user(user.user_id)
    except NotFound:
        return True
    except ProjectRefused as refused:
        log.info("project.user_not_told", number=refused.number)
    return False


async def _strong_key(reading: _Reading, account_id: UUID | None) -> str:
    if account_id is None:
        return ""
    async with reading.means.database.transaction() as session:
        return await visiting.strong_key_of(session, reading.means.vault, account_id)
