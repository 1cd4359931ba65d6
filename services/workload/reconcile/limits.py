"""The limits lane: what is desired and the cloud does not have, the newest wish only."""

import structlog

from libs.providers.base import ProviderError, Unavailable
from services.workload.reconcile.hands import Hands
from services.workload.usecases.leasing import Claimed
from services.workload.usecases.limiting import (
    LimitsDue,
    Outcome,
    are_still_desired,
    limits_due,
    settle_limits,
)

log = structlog.get_logger(__name__)


async def apply_limits(hands: Hands, resource: Claimed) -> None:
    """Ask for every limit that is due. Raises LeaseLost before the first call that is no longer ours to make."""
    if not resource.has_machines:
        return
    async with hands.database.transaction() as session:
        due = await limits_due(session, resource.resource_id)
    outcomes = [
        await _apply(hands, resource, limits) for limits in due if not hands.is_resting(limits.cluster_id)
    ]
    for outcome in outcomes:
        if isinstance(outcome, Unavailable):
            raise outcome


async def _apply(hands: Hands, resource: Claimed, due: LimitsDue) -> Outcome | None:
    """What came of it; None when a newer decision has replaced it."""
    async with hands.starting(resource) as (session, _):
        if not await are_still_desired(session, due):
            return None
    outcome = await _set_limits(hands, resource, due)
    async with hands.settling(resource) as (session, _):
        await settle_limits(session, [(due, outcome)], hands.clock.now())
    if isinstance(outcome, ProviderError) and not isinstance(outcome, Unavailable):
        hands.rest(due.cluster_id)
    return outcome


async def _set_limits(hands: Hands, resource: Claimed, due: LimitsDue) -> Outcome:
    provider = await hands.session(resource)
    about = {"cluster": due.name, "resource": resource.name, "reason": due.reason}
    try:
        changes = await hands.call(provider.set_limits(due.cluster, due.cap_mhz, due.limits_mhz))
    except ProviderError as error:
        log.warning("limits.refused", **about, cause=error.cause.value, error=error.detail)
        return error
    log.info(
        "limits.applied",
        **about,
        cap_mhz=due.cap_mhz,
        limits_mhz=dict(due.limits_mhz),
        changes=changes,
    )
    return changes
