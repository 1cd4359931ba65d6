"""Workload's beats: judge silence, apply limits, bring machines in line. Each acts outside any transaction."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

import structlog

from libs.common.clock import Clock
from libs.common.contracts.action import ResourceReleased
from libs.common.contracts.resource import Mode
from libs.common.db import Database
from libs.common.lanes import Lanes
from libs.common.secrets import Unsealable, Vault
from libs.providers.base import Cause, Power, Provider, ProviderError, Rejected, Unavailable
from libs.providers.sessions import Sessions
from services.workload.domain.steps import Act
from services.workload.settings import Pace
from services.workload.usecases.following import Means
from services.workload.usecases.judging import judge_silence
from services.workload.usecases.keeping import belongs_to, forget_old
from services.workload.usecases.leasing import (
    Claimed,
    LeaseLost,
    back_off,
    claim_resources,
    guard,
    release_claims,
)
from services.workload.usecases.limiting import LimitsDue, Outcome, limits_due, settle_limits
from services.workload.usecases.looking import Due, Look, settle_act_refused, settle_look
from services.workload.usecases.making import spec_of
from services.workload.usecases.recording import record

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class Hands:
    """What it takes to act: the database, sessions to clouds, lanes, and who this replica is."""

    database: Database
    sessions: Sessions
    lanes: Lanes
    clock: Clock
    vault: Vault
    replica: UUID
    installation_id: UUID
    pace: Pace
    looked_at: dict[UUID, datetime] = field(default_factory=dict)
    """When each resource's inventory was last read."""
    resting_until: dict[UUID, datetime] = field(default_factory=dict)
    """Clusters whose limits were refused: not asked again before."""
    refused: dict[tuple[str, Act], tuple[int, datetime]] = field(default_factory=dict)
    """Acts on machines that the cloud forbade: how often, and not asked again before."""
    is_ours: bool = False
    """Whether the database is known to be this installation's."""

    async def claim(self) -> list[Claimed]:
        """Resources that this replica may act on now; sessions of others are closed. None in a strange database."""
        async with self.database.transaction() as session:
            self.is_ours = self.is_ours or await belongs_to(session, self.installation_id, self.clock.now())
            if not self.is_ours:
                log.error(
                    "installation.differs",
                    remedy="give this process the TIDES_INSTALLATION_ID of its database",
                )
                return []
            claimed = await claim_resources(session, self.replica, self.installation_id, self.clock.now())
        await self.sessions.keep({resource.resource_id for resource in claimed})
        return claimed

    def may_look(self, resource: Claimed) -> bool:
        """Whether a resource's inventory is due to be read: soon while something is under way, else now and then."""
        looked_at = self.looked_at.get(resource.resource_id)
        every_s = self.pace.look_every_s if resource.is_settled else self.pace.look_again_s
        return looked_at is None or self.clock.now() >= looked_at + timedelta(seconds=every_s)

    def is_resting(self, cluster_id: UUID) -> bool:
        """Whether a cluster's limits were refused a moment ago."""
        until = self.resting_until.get(cluster_id)
        return until is not None and self.clock.now() < until

    def rest(self, cluster_id: UUID) -> None:
        """Do not ask for this cluster's limits for a while."""
        self.resting_until[cluster_id] = self.clock.now() + timedelta(seconds=self.pace.refused_rest_s)

    def may_try(self, due: Due) -> bool:
        """Whether an act may be asked for; one that was forbidden is, ever more rarely: each try is seen there."""
        _, not_before = self.refused.get((due.name, due.act), (0, None))
        return not_before is None or self.clock.now() >= not_before

    def note_refused(self, due: Due) -> None:
        """Let an act that was forbidden rest, longer each time."""
        times, _ = self.refused.get((due.name, due.act), (0, None))
        rest_s = min(self.pace.refused_most_s, self.pace.refused_rest_s * 2.0 ** min(times, 10))
        self.refused[due.name, due.act] = (times + 1, self.clock.now() + timedelta(seconds=rest_s))

    def note_done(self, due: Due) -> None:
        """An act was taken: what was forbidden of it before is forgotten; of a deleted machine everything."""
        for key in [key for key in self.refused if key[0] == due.name and due.act in (key[1], Act.DELETE)]:
            del self.refused[key]

    async def give_back(self) -> None:
        """An orderly stop: no lease and no session is left behind."""
        await self.lanes.aclose()
        async with self.database.transaction() as session:
            await release_claims(session, self.replica)
        await self.sessions.aclose()


async def judge_silent(database: Database, means: Means) -> None:
    """Silence acts too: clusters not heard of for three intervals go to the floor."""
    async with database.transaction() as session:
        await judge_silence(means, session)


async def keep_house(database: Database, clock: Clock) -> None:
    """Forget what is past its time."""
    async with database.transaction() as session:
        await forget_old(session, clock.now())


async def act(hands: Hands) -> None:
    """Every resource that this replica holds, in lanes of its own: limits never wait for a clone."""
    for resource in await hands.claim():
        key = resource.resource_id
        hands.lanes.start(("limits", key), partial(_guarded, hands, resource, _apply_limits))
        if hands.may_look(resource):
            hands.lanes.start(("machines", key), partial(_guarded, hands, resource, _reconcile))


async def _guarded(
    hands: Hands, resource: Claimed, work: Callable[[Hands, Claimed], Awaitable[None]]
) -> None:
    """Work on one resource; what its cloud or its lease says no to ends here and is tried again later."""
    try:
        await work(hands, resource)
    except LeaseLost:
        log.info("lease.lost", resource=resource.name)
        await hands.sessions.drop(resource.resource_id)
    except (ProviderError, Unsealable) as error:
        log.warning("resource.refused", resource=resource.name, lane=work.__name__, error=str(error))
        await hands.sessions.drop(resource.resource_id)
        async with hands.database.transaction() as session:
            back_off(await guard(session, hands.replica, resource.resource_id), error, hands.clock.now())


async def _session(hands: Hands, resource: Claimed) -> Provider:
    return await _call(hands, hands.sessions.get(resource.provider, resource.connection))


async def _call(hands: Hands, call: Awaitable[T]) -> T:
    """One call to a cloud. A time-out means unknown: the next look reads back before anything else."""
    try:
        async with asyncio.timeout(hands.pace.call_s):
            return await call
    except TimeoutError:
        raise Unavailable(Cause.TIMEOUT, f"no answer within {hands.pace.call_s:.0f} s") from None


async def _apply_limits(hands: Hands, resource: Claimed) -> None:
    if not resource.has_machines:
        return
    async with hands.database.transaction() as session:
        due = await limits_due(session, resource.resource_id)
    due = [limits for limits in due if not hands.is_resting(limits.cluster_id)]
    if not due:
        return
    provider = await _session(hands, resource)
    outcomes = [(limits, await _set_limits(hands, provider, limits)) for limits in due]
    async with hands.database.transaction() as session:
        await guard(session, hands.replica, resource.resource_id)
        await settle_limits(session, outcomes, hands.clock.now())
    for limits, outcome in outcomes:
        if isinstance(outcome, Unavailable):
            raise outcome
        if isinstance(outcome, ProviderError):
            hands.rest(limits.cluster_id)


async def _set_limits(hands: Hands, provider: Provider, due: LimitsDue) -> Outcome:
    try:
        changes = await _call(hands, provider.set_limits(due.cluster, due.cap_mhz, due.limits_mhz))
    except ProviderError as error:
        log.warning("limits.refused", cluster=due.name, cause=error.cause.value, error=error.detail)
        return error
    log.info(
        "limits.applied",
        cluster=due.name,
        cap_mhz=due.cap_mhz,
        limits_mhz=dict(due.limits_mhz),
        changes=changes,
    )
    return changes


async def _reconcile(hands: Hands, resource: Claimed) -> None:
    for _ in range(hands.pace.looks_in_a_row):
        look = await _look(hands, resource)
        if resource.mode is Mode.DRAINING and look.live == 0 and not resource.released:
            await _release(hands, resource)
            return
        due = [item for item in look.due if hands.may_try(item)]
        if not due or not await _perform_all(hands, resource, due):
            return


async def _look(hands: Hands, resource: Claimed) -> Look:
    if _has_nothing_to_see(resource):
        return Look()
    provider = await _session(hands, resource)
    hands.looked_at[resource.resource_id] = hands.clock.now()
    seen = await _call(hands, provider.machines())
    ours = [machine for machine in seen if machine.mark.installation_id == hands.installation_id]
    async with hands.database.transaction() as session:
        row = await guard(session, hands.replica, resource.resource_id)
        return await settle_look(session, row, ours, hands.clock.now())


def _has_nothing_to_see(resource: Claimed) -> bool:
    """An observed cloud is left alone; one that never had anything of ours can be let go without asking it."""
    if resource.mode is Mode.OBSERVE:
        return not resource.has_machines
    return resource.is_untouched and (resource.force or not resource.clusters)


async def _release(hands: Hands, resource: Claimed) -> None:
    """Nothing of ours is left: take away pools and folders, then say so."""
    if not _has_nothing_to_see(resource):
        provider = await _session(hands, resource)
        for cluster in resource.clusters:
            await _let_go(hands, provider, cluster)
    async with hands.database.transaction() as session:
        row = await guard(session, hands.replica, resource.resource_id)
        row.released = True
        released = ResourceReleased(
            at=hands.clock.now(), resource_id=resource.resource_id, revision=resource.revision
        )
        record(session, released)
    log.info("resource.released", resource=resource.name)


async def _let_go(hands: Hands, provider: Provider, cluster: str) -> None:
    """Release one cluster; one that has vanished from the cloud is released."""
    try:
        await _call(hands, provider.release(cluster))
    except Rejected as error:
        if error.cause is not Cause.NOT_FOUND:
            raise


async def _perform_all(hands: Hands, resource: Claimed, due: list[Due]) -> bool:
    """Perform the acts, clones within their limit; True when all went well and a fresh look is worth it."""
    clones, acts = asyncio.Semaphore(hands.pace.parallel_clones), asyncio.Semaphore(hands.pace.parallel_acts)

    async def one(item: Due) -> bool:
        async with clones if item.act is Act.CREATE else acts:
            return await _perform(hands, resource, item)

    return all(await asyncio.gather(*(one(item) for item in due)))


async def _perform(hands: Hands, resource: Claimed, due: Due) -> bool:
    provider = await _session(hands, resource)
    try:
        await _call(hands, _act(hands, provider, due))
    except ProviderError as error:
        log.warning(
            "machine.refused",
            machine=due.name,
            act=due.act.value,
            cause=error.cause.value,
            error=error.detail,
        )
        if isinstance(error, Rejected):
            hands.note_refused(due)
        async with hands.database.transaction() as session:
            await guard(session, hands.replica, resource.resource_id)
            await settle_act_refused(
                session, due, error, is_final=isinstance(error, Rejected), now=hands.clock.now()
            )
        return False
    hands.note_done(due)
    log.info("machine.acted", machine=due.name, act=due.act.value, resource=resource.name)
    return True


async def _act(hands: Hands, provider: Provider, due: Due) -> None:
    match due.act:
        case Act.DELETE:
            await provider.delete(due.name)
        case Act.POWER_ON:
            await provider.set_power(due.name, Power.ON)
        case Act.SUSPEND:
            await provider.set_power(due.name, Power.SUSPENDED)
        case Act.CREATE if due.machine_id is not None:
            async with hands.database.transaction() as session:
                spec = await spec_of(session, due.machine_id, hands.installation_id, hands.vault)
            if spec is not None:
                await provider.create(spec)
