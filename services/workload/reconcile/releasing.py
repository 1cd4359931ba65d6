"""Letting go of a cloud: our pools and folders leave it when no machine of ours is left."""

import structlog

from libs.common.contracts.resource import Mode
from libs.providers.base import Cause, ProviderError, Rejected
from services.workload.domain.words import ONLY_OBSERVES, released
from services.workload.reconcile.hands import RELEASE, Hands
from services.workload.usecases.leasing import Claimed, is_of_endpoint
from services.workload.usecases.releasing import (
    may_release,
    note_cluster_released,
    settle_release,
)

log = structlog.get_logger(__name__)


def has_nothing_to_see(resource: Claimed) -> bool:
    """An observed cloud is left alone; one that never had anything of ours can be let go without asking it."""
    if resource.mode is Mode.OBSERVE:
        return not (resource.has_machines or resource.occupied or resource.is_probed)
    may_go = resource.mode is Mode.DRAINING and resource.is_untouched
    return may_go and (resource.force or not resource.clusters)


async def release(hands: Hands, resource: Claimed) -> None:
    """Take away pools and folders, then, of a draining resource, say so once. What fails is tried at the next beat.

    A resource that was changed meanwhile (lent again, say) is left as it is: the next beat goes by its new state.
    """
    is_observed = resource.mode is Mode.OBSERVE
    if resource.released and not is_observed:
        return
    if not has_nothing_to_see(resource):
        clusters = resource.occupied if is_observed else resource.clusters
        if not all([await _let_go(hands, resource, cluster) for cluster in clusters]):
            return
    if is_observed:
        return
    async with hands.settling(resource) as (session, row):
        if not await settle_release(session, row, resource, hands.clock.now()):
            return
    log.info("resource.released", resource=resource.name, reason=_why(resource))


async def _let_go(hands: Hands, resource: Claimed, cluster: str) -> bool:
    """Release one cluster; one that has vanished from the cloud is released. False: it may not be, or was refused."""
    where = f"{resource.resource_id}/{cluster}"
    about = {"cluster": cluster, "resource": resource.name, "reason": _why(resource)}
    if not hands.may_try(where, RELEASE):
        return False
    turn = await hands.begin(resource)
    async with hands.starting(resource, turn) as (session, row):
        if not await may_release(session, row, resource):
            log.info("cluster.kept", **about, because="the resource was changed or has a machine again")
            return False
    try:
        await hands.call(turn, turn.provider.release(cluster))
    except ProviderError as error:
        if not isinstance(error, Rejected) or error.cause is not Cause.NOT_FOUND:
            log.warning("cluster.not_released", **about, cause=error.cause.value, error=error.detail)
            if is_of_endpoint(error):
                raise
            hands.note_refused(where, RELEASE, error)
            return False
    hands.note_done(where, RELEASE)
    async with hands.settling(resource) as (session, row):
        await note_cluster_released(session, row, cluster)
    log.info("cluster.released", **about)
    return True


def _why(resource: Claimed) -> str:
    return ONLY_OBSERVES if resource.mode is Mode.OBSERVE else released(force=resource.force)
