"""The machines lane: look, then make, wake, suspend and delete until every machine is as wanted."""

import asyncio
from functools import partial

import structlog

from libs.common.contracts.resource import Mode
from libs.common.lanes import speaking_of
from libs.common.secrets import Unsealable
from libs.providers.base import Capability, Cause, Power, Provider, ProviderError, Rejected, TemplateSeen
from services.workload.domain.steps import Act
from services.workload.reconcile.hands import Hands, Turn
from services.workload.reconcile.releasing import has_nothing_to_see, release
from services.workload.usecases.asking import is_still_due
from services.workload.usecases.causes import cause_of_act
from services.workload.usecases.images import settle_cleared, settle_kept
from services.workload.usecases.judging import rejudge_all
from services.workload.usecases.leasing import Claimed, LeaseLost, is_of_endpoint
from services.workload.usecases.looking import Due, Look, settle_act_refused, settle_look
from services.workload.usecases.making import begun_on, spec_of

log = structlog.get_logger(__name__)


async def reconcile(hands: Hands, resource: Claimed) -> None:
    """Bring the machines of one resource in line; where nothing of ours is to be and none is left, let go of it."""
    for _ in range(hands.pace.looks_in_a_row):
        look = await _look(hands, resource)
        if look.live == 0 and resource.mode in (Mode.DRAINING, Mode.OBSERVE):
            await release(hands, resource)
            return
        due = [item for item in look.due if hands.may_try(item.name, item.act)]
        if look.is_first and not due:
            continue  # what was judged upon it may want something now
        if not due or not await _perform_all(hands, resource, due):
            return


async def _look(hands: Hands, resource: Claimed) -> Look:
    if has_nothing_to_see(resource):
        return Look()
    turn = await hands.begin(resource)
    hands.note_look(resource)
    await _recall(hands, turn, resource)
    seen = await hands.call(turn, turn.provider.machines())
    ours = [machine for machine in seen if machine.mark.installation_id == hands.installation_id]
    async with hands.settling(resource) as (session, row):
        look = await settle_look(session, row, ours, hands.clock.now())
        if look.is_first:
            await rejudge_all(hands.means, session, row)
        return look


async def _recall(hands: Hands, turn: Turn, resource: Claimed) -> None:
    """What an earlier process had the cloud begin is found again before anybody asks what there is."""
    if Capability.RECALL not in turn.provider.capabilities:
        return
    async with hands.database.transaction() as session:
        begun = await begun_on(session, resource.resource_id, hands.installation_id)
    if begun:
        await hands.call(turn, turn.provider.recall(begun))


async def _perform_all(hands: Hands, resource: Claimed, due: list[Due]) -> bool:
    """Perform the acts, clones within their limit; True when all went well and a fresh look is worth it.

    After a lost lease, or any other failure that is not one machine's, nothing more is started; what the cloud has
    begun is waited for.
    """
    clones, acts = asyncio.Semaphore(hands.pace.parallel_clones), asyncio.Semaphore(hands.pace.parallel_acts)
    stopped: list[Exception] = []

    async def one(item: Due) -> bool:
        async with clones if item.act is Act.CREATE else acts:
            try:
                with speaking_of(machine=item.name, act=item.act.value, cluster=item.cluster):
                    return not stopped and await _perform_noted(hands, resource, item)
            except Exception as error:
                stopped.append(error)
                return False

    went_well = await asyncio.gather(*(one(item) for item in due))
    if stopped:
        raise next((error for error in stopped if isinstance(error, LeaseLost)), stopped[0])
    return all(went_well)


async def _perform_noted(hands: Hands, resource: Claimed, due: Due) -> bool:
    about = {"machine": due.name, "cluster": due.cluster, "resource": resource.name}
    async with hands.noting(f"machine.{due.act.value}", partial(cause_of_act, due=due), **about):
        return await _perform(hands, resource, due)


async def _perform(hands: Hands, resource: Claimed, due: Due) -> bool:
    """Whether the cloud took the act. A refusal about the machine lets that act rest; one about the cloud is raised."""
    turn = await hands.begin(resource)
    async with hands.starting(resource, turn) as (session, row):
        if not await is_still_due(session, row, due):
            return False
    about = {"machine": due.name, "act": due.act.value, "cluster": due.cluster, "resource": resource.name}
    about["reason"] = due.reason
    if due.act is Act.DELETE:  # what cannot be undone is said before it is done
        log.info("machine.deleting", **about)
    try:
        kept = await hands.call(turn, _act(hands, turn.provider, due))
    except ProviderError as error:
        log.warning("machine.refused", **about, cause=error.cause.value, error=error.detail)
        if is_of_endpoint(error):
            raise
        hands.note_refused(due.name, due.act, error)
        async with hands.settling(resource) as (session, _):
            await settle_act_refused(
                session, due, error, is_final=isinstance(error, Rejected), now=hands.clock.now()
            )
        return False
    hands.note_done(due.name, due.act)
    log.info("machine.acted", **about)
    if kept is not None or due.derivation_id is not None:
        await _settle_image(hands, resource, due, kept)
    return True


async def _settle_image(hands: Hands, resource: Claimed, due: Due, kept: TemplateSeen | None) -> None:
    """A machine became a template, or a template is gone. If this is lost, the same act says the same again."""
    async with hands.settling(resource) as (session, _):
        if due.derivation_id is not None:
            await settle_cleared(session, due.derivation_id)
        elif kept is not None and due.machine_id is not None:
            await settle_kept(session, due.machine_id, kept, hands.clock.now())


async def _act(hands: Hands, provider: Provider, due: Due) -> TemplateSeen | None:
    """What was made a template, else nothing."""
    match due.act:
        case Act.KEEP:
            return await provider.keep_as_template(due.name)
        case Act.DELETE:
            await provider.delete(due.name)
        case Act.POWER_ON:
            await provider.set_power(due.name, Power.ON)
        case Act.SUSPEND:
            await provider.set_power(due.name, Power.SUSPENDED)
        case Act.CREATE if due.machine_id is not None:
            async with hands.database.transaction() as session:
                try:
                    spec = await spec_of(
                        session, due.machine_id, hands.installation_id, hands.vault, hands.guests
                    )
                except (ValueError, Unsealable) as error:
                    # Too much for a guest's context, or a lost key: that machine rests, and what else is due goes on.
                    raise Rejected(Cause.INVALID, f"its user data cannot be written: {error}") from None
            if spec is not None:
                await provider.create(spec)
    return None
