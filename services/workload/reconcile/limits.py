"""The limits lane: what is desired and the cloud does not have, the newest wish only."""

from functools import partial

import structlog

from libs.common.lanes import speaking_of
from libs.providers.base import Capability, Cause, ProviderError, Rejected
from services.workload.reconcile.hands import Hands, Turn
from services.workload.usecases.causes import cause_of_limits
from services.workload.usecases.leasing import Claimed, is_of_endpoint
from services.workload.usecases.limiting import (
    LimitsDue,
    Outcome,
    are_still_desired,
    free_guests,
    limits_due,
    settle_limits,
    throttle_guests,
)

log = structlog.get_logger(__name__)


async def apply_limits(hands: Hands, resource: Claimed) -> None:
    """Ask for every limit that is due, and now and then for those that should hold: somebody may have edited what holds
    them. A refusal about one cluster is its own, the others go on.

    Raises LeaseLost before the first call that is no longer ours to make, ProviderError where the endpoint fails.
    """
    if not resource.has_machines:
        return
    async with hands.database.transaction() as session:
        due = await limits_due(session, resource.resource_id)
    for limits in due:
        if not hands.is_resting(limits) and (limits.is_known_due or hands.may_check(limits)):
            hands.note_check(limits)
            cause = partial(cause_of_limits, due=limits)
            about = {"cluster": limits.name, "resource": resource.name}
            with speaking_of(cluster=limits.name):
                async with hands.noting("limits.apply", cause, **about):
                    await _apply(hands, resource, limits)


async def _apply(hands: Hands, resource: Claimed, due: LimitsDue) -> None:
    turn = await hands.begin(resource)
    async with hands.starting(resource, turn) as (session, _):
        if not await are_still_desired(session, due):
            return
    has_limits = Capability.LIMITS in turn.provider.capabilities
    outcome = await _set_limits(hands, turn, resource, due) if has_limits else _instead(hands, resource, due)
    async with hands.settling(resource) as (session, _):
        if not has_limits and not isinstance(outcome, ProviderError):
            outcome = await throttle_guests(session, due, hands.clock.now())
            hands.pause(due)  # the cloud will never show them
        if has_limits and not isinstance(outcome, ProviderError):
            await free_guests(session, due, hands.clock.now())
        await settle_limits(session, [(due, outcome)], hands.clock.now())
    if isinstance(outcome, ProviderError):
        if is_of_endpoint(outcome):
            raise outcome
        hands.rest(due, outcome)


def _instead(hands: Hands, resource: Claimed, due: LimitsDue) -> Outcome:
    """Guests keep to the limits themselves where the cloud has none, if they have an agent that hears of them."""
    if hands.guests is not None:
        return 0
    log.warning(
        "limits.impossible", cluster=due.name, remedy="set TIDES_BOINC_URL, so that machines have agents"
    )
    hands.instruments.limits_failed(resource.resource_id, Cause.INVALID)
    return Rejected(
        Cause.INVALID, "the cloud has no limits, and machines that are attached by files no agents"
    )


async def _set_limits(hands: Hands, turn: Turn, resource: Claimed, due: LimitsDue) -> Outcome:
    about = {"cluster": due.name, "resource": resource.name, "reason": due.reason}
    try:
        changes = await hands.call(turn, turn.provider.set_limits(due.cluster, due.cap_mhz, due.limits_mhz))
    except ProviderError as error:
        log.warning("limits.refused", **about, cause=error.cause.value, error=error.detail)
        hands.instruments.limits_failed(resource.resource_id, error.cause)
        return error
    hands.instruments.limits_changed(resource.resource_id, changes)
    if due.is_known_due or changes:
        log.info(
            "limits.applied",
            **about,
            cap_mhz=due.cap_mhz,
            limits_mhz=dict(due.limits_mhz),
            changes=changes,
        )
    return changes
