"""Workload's beats: judge silence, apply limits, bring machines in line. Each acts outside any transaction."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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
from services.workload.usecases.acting import (
    Claimed,
    LeaseLost,
    LimitsDue,
    back_off,
    claim_resources,
    guard,
    limits_due,
    release_claims,
    settle_limits,
    settle_refused_limits,
    spec_of,
)
from services.workload.usecases.following import Means
from services.workload.usecases.judging import judge_silence
from services.workload.usecases.looking import Due, Look, settle_act_refused, settle_look
from services.workload.usecases.reading import cluster_refs
from services.workload.usecases.recording import record

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
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

    async def claim(self) -> list[Claimed]:
        """Resources that this replica may act on now; sessions of others are closed."""
        async with self.database.transaction() as session:
            claimed = await claim_resources(session, self.replica, self.installation_id, self.clock.now())
        await self.sessions.keep({resource.resource_id for resource in claimed})
        return claimed

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


async def apply_limits(hands: Hands) -> None:
    """Limits that the cloud does not have yet, each resource in a lane of its own, never behind a clone."""
    for resource in await hands.claim():
        hands.lanes.start(("limits", resource.resource_id), partial(_guarded, hands, resource, _apply_limits))


async def reconcile_machines(hands: Hands) -> None:
    """Machines that are not as wanted, each resource in a lane of its own."""
    for resource in await hands.claim():
        hands.lanes.start(("machines", resource.resource_id), partial(_guarded, hands, resource, _reconcile))


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
            back_off(await guard(session, hands.replica, resource.resource_id), hands.clock.now())


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
    async with hands.database.transaction() as session:
        due = await limits_due(session, resource.resource_id)
    for limits in due:
        provider = await _session(hands, resource)
        await _set_limits(hands, resource, provider, limits)


async def _set_limits(hands: Hands, resource: Claimed, provider: Provider, due: LimitsDue) -> None:
    try:
        changes = await _call(hands, provider.set_limits(due.cluster, due.cap_mhz, due.limits_mhz))
    except ProviderError as error:
        async with hands.database.transaction() as session:
            await guard(session, hands.replica, resource.resource_id)
            await settle_refused_limits(session, due, error, hands.clock.now())
        raise
    async with hands.database.transaction() as session:
        await guard(session, hands.replica, resource.resource_id)
        await settle_limits(session, due, changes, hands.clock.now())
    log.info(
        "limits.applied",
        cluster=due.name,
        cap_mhz=due.cap_mhz,
        limits_mhz=dict(due.limits_mhz),
        changes=changes,
    )


async def _reconcile(hands: Hands, resource: Claimed) -> None:
    for _ in range(hands.pace.looks_in_a_row):
        look = await _look(hands, resource)
        if resource.mode is Mode.DRAINING and look.live == 0 and not resource.released:
            await _release(hands, resource)
            return
        if not look.due or not await _perform_all(hands, resource, look.due):
            return


async def _look(hands: Hands, resource: Claimed) -> Look:
    async with hands.database.transaction() as session:
        refs = await cluster_refs(session, resource.resource_id)
    if resource.mode is Mode.OBSERVE and not refs.has_machines:
        return Look()
    if refs.has_nothing_ever and (resource.force or not refs.clusters):
        return Look()
    provider = await _session(hands, resource)
    seen = await _call(hands, provider.machines())
    ours = [machine for machine in seen if machine.mark.installation_id == hands.installation_id]
    async with hands.database.transaction() as session:
        row = await guard(session, hands.replica, resource.resource_id)
        return await settle_look(session, row, ours, hands.clock.now())


async def _release(hands: Hands, resource: Claimed) -> None:
    """Nothing of ours is left: take away pools and folders, then say so."""
    async with hands.database.transaction() as session:
        refs = await cluster_refs(session, resource.resource_id)
    if refs.clusters and not (refs.has_nothing_ever and resource.force):
        provider = await _session(hands, resource)
        for cluster in refs.clusters:
            await _call(hands, provider.release(cluster))
    async with hands.database.transaction() as session:
        row = await guard(session, hands.replica, resource.resource_id)
        row.released = True
        record(session, ResourceReleased(at=hands.clock.now(), resource_id=resource.resource_id))
    log.info("resource.released", resource=resource.name)


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
        async with hands.database.transaction() as session:
            await guard(session, hands.replica, resource.resource_id)
            await settle_act_refused(
                session, due, error, is_final=isinstance(error, Rejected), now=hands.clock.now()
            )
        return False
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
