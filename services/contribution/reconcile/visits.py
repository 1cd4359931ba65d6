"""The beat `visit`: every project is asked a few times a day, politely, and one that fails is left alone for longer."""

import random
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from libs.boinc.web import ProjectClient, ProjectConfig, ProjectDown, ProjectUnavailable, open_project
from libs.common.ids import new_id
from libs.common.lanes import Lanes
from services.contribution.reconcile.letting_in import let_in
from services.contribution.reconcile.means import Means
from services.contribution.reconcile.statistics import read_statistics
from services.contribution.usecases import visiting
from services.contribution.usecases.projects import VISIT_EVERY, note_seen
from services.contribution.usecases.visiting import LeaseLost, Turn

log = structlog.get_logger(__name__)

VISIT_BEAT_S = 30.0
MOST_AT_ONCE = 8
"""Projects that are asked side by side by one process."""


class Instruments:
    """What visits count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ended = Counter(
            "tides_project_visits", "Visits of projects by their end.", ("end",), registry=registry
        )
        self.granted = Counter(
            "tides_credit_granted", "Credit that was seen to be granted to machines.", registry=registry
        )
        self.failing = Gauge(
            "tides_projects_failing", "Projects that could not be asked at the last try.", registry=registry
        )


@dataclass(slots=True)
class Visits:
    """Who asks projects, and what for: terms, logins, keys, credit."""

    means: Means
    lanes: Lanes
    instruments: Instruments
    jitter: float
    token: UUID = field(default_factory=new_id)
    chance: random.Random = field(default_factory=random.Random)
    running: set[UUID] = field(default_factory=set)

    async def visit(self) -> None:
        """Begin with every project that is due, each in a lane of its own: a slow one delays no other."""
        async with self.means.database.transaction() as session:
            room = MOST_AT_ONCE - len(self.running)
            turns = await visiting.claim(session, self.token, self.running, room, self.means.clock.now())
            self.instruments.failing.set(await visiting.count_failing(session))
        for turn in turns:
            self.running.add(turn.project_id)
            self.lanes.start(turn.project_id, partial(self._run, turn))

    async def aclose(self) -> None:
        """Ask nobody any more, and let others take over at once."""
        await self.lanes.aclose()
        async with self.means.database.transaction() as session:
            await visiting.give_back(session, self.token)

    async def _run(self, turn: Turn) -> None:
        end = "failed"
        try:
            end = await self._visit(turn)
        except LeaseLost:
            end = "lease lost"
        finally:
            self.running.discard(turn.project_id)
            self.instruments.ended.labels(end).inc()

    async def _visit(self, turn: Turn) -> str:
        try:
            await self._ask_all(turn)
        except (ProjectUnavailable, ProjectDown) as error:
            async with self.means.database.transaction() as session:
                await visiting.put_off(session, turn, str(error), self._scatter(), self.means.clock.now())
            return "unavailable"
        async with self.means.database.transaction() as session:
            every: timedelta = VISIT_EVERY * (0.9 + 0.2 * self._scatter())
            await visiting.end_visit(session, turn, every, self.means.clock.now())
        return "visited"

    async def _ask_all(self, turn: Turn) -> None:
        async with open_project(turn.url, self.means.reach) as project:
            config = await project.config()
        async with self.means.database.transaction() as session:
            await visiting.hold(session, turn)
            await note_seen(session, turn.project_id, config, self.means.clock.now())
        _insist_on_up(config, turn.url)
        async with open_project(config.rpc_url, self.means.reach) as project:
            await self._ask_accounts(turn, project, config)
            if turn.reads_stats:
                self.instruments.granted.inc(await read_statistics(self.means, turn, project))

    async def _ask_accounts(self, turn: Turn, project: ProjectClient, config: ProjectConfig) -> None:
        async with self.means.database.transaction() as session:
            account_ids = await visiting.accounts_of(session, turn.project_id)
        for account_id in account_ids:
            granted = await let_in(self.means, turn, project, config, account_id)
            self.instruments.granted.inc(granted)

    def _scatter(self) -> float:
        return 0.5 + self.jitter * (self.chance.random() - 0.5)


def _insist_on_up(config: ProjectConfig, url: str) -> None:
    """Raise ProjectUnavailable where nothing more may be asked: it is stopped, or keys would travel in the open."""
    if config.down:
        raise ProjectUnavailable("The project is stopped for maintenance.")
    if url.startswith("https:") and not config.rpc_url.startswith("https:"):
        raise ProjectUnavailable("The project wants keys without encryption, although it has it.")
