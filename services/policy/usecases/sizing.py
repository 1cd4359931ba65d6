"""Which numbers a size by name stands for at a place."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select

from libs.common.contracts.supply import Scope
from libs.common.db import Session
from libs.common.errors import invalid
from services.policy.domain.sized import Numbers, size_of, sizes_of
from services.policy.models import Assignment, KnownCluster, Policy


async def resolve(
    session: Session, document: Mapping[str, Any], scope: str, scope_id: UUID
) -> dict[str, int] | None:
    """vCPUs and memory of the document's size there; None without a size. Raises 422 where there is no such class."""
    size = size_of(document)
    if size is None:
        return None
    where = KnownCluster.cluster_id if scope == Scope.CLUSTER else KnownCluster.resource_id
    clusters = (await session.scalars(select(KnownCluster.hosts).where(where == scope_id))).all()
    classes = {one.name: one for one in sizes_of([host for hosts in clusters for host in hosts])}
    if size in classes:
        return {"vcpus": classes[size].vcpus, "memory_mib": classes[size].memory_mib}
    if not classes:
        raise invalid(
            "machine.size",
            f"What the hosts of this {scope} are made of is not known, so nothing is {size} of one.",
            "Wait for its first samples, or give `vcpus` and `memory_mib`.",
        )
    raise invalid(
        "machine.size",
        f"There is no size {size!r} on this {scope}: it is too wide for a NUMA node, or too small.",
        f"Take one of: {', '.join(classes)}; GET /v1/resources/{{id}}/sizes shows them.",
    )


async def find_numbers(session: Session, policy: Policy) -> Numbers | None:
    """What the size of a policy stands for where it was assigned first; None where it is not."""
    query = select(Assignment.size).where(Assignment.policy_id == policy.id, Assignment.size.is_not(None))
    found: Numbers | None = await session.scalar(query.order_by(Assignment.assigned_at).limit(1))
    return found
