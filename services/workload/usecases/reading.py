"""Reading: what the API shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select, text, tuple_

from libs.common.db import Session
from services.workload.domain.states import LIVE, MachineState
from services.workload.models import ActionRecord, Cluster, DecisionRecord, Machine, Resource, Workload


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """A cluster with its resource and its machines by state."""

    cluster: Cluster
    resource: Resource
    machines: dict[str, int]
    guests: dict[str, int]
    """Those that run, by what their guests say; one of which nothing has been said is left out."""


async def clusters(
    session: Session, organisation_id: UUID | None, resource_id: UUID | None = None
) -> list[ClusterRow]:
    """Every cluster of an organisation (None: of all), by resource and name."""
    rows = (
        select(Cluster, Resource)
        .join(Resource, Resource.id == Cluster.resource_id)
        .where(Resource.gone.is_(False))
    )
    if organisation_id is not None:
        rows = rows.where(Resource.organisation_id == organisation_id)
    if resource_id is not None:
        rows = rows.where(Cluster.resource_id == resource_id)
    counts = select(Machine.cluster_id, Machine.state, func.count()).where(Machine.state.in_(LIVE))
    by_cluster: dict[UUID, dict[str, int]] = {}
    for cluster_id, state, count in await session.execute(counts.group_by(Machine.cluster_id, Machine.state)):
        by_cluster.setdefault(cluster_id, {})[state.value] = count
    guests = await _guests(session)
    found = (await session.execute(rows.order_by(Resource.name, Cluster.name))).all()
    return [
        ClusterRow(cluster, resource, by_cluster.get(cluster.id, {}), guests.get(cluster.id, {}))
        for cluster, resource in found
    ]


async def _guests(session: Session) -> dict[UUID, dict[str, int]]:
    told = (Machine.state == MachineState.RUNNING) & Machine.health.is_not(None)
    counts = select(Machine.cluster_id, Machine.health, func.count()).where(told)
    by_cluster: dict[UUID, dict[str, int]] = {}
    grouped = counts.group_by(Machine.cluster_id, Machine.health)
    for cluster_id, health, count in await session.execute(grouped):
        by_cluster.setdefault(cluster_id, {})[health or ""] = count
    return by_cluster


@dataclass(frozen=True, slots=True)
class Slice:
    """Which rows of a list: whose, of which cluster, from where on, and how many."""

    organisation_id: UUID | None
    """None: of all organisations."""
    limit: int
    after: UUID | None = None
    cluster_id: UUID | None = None


async def machines(session: Session, wish: Slice, *, live: bool) -> Sequence[Machine]:
    """Machines by id (which is their age), one more than `limit` where there are more."""
    rows = select(Machine).order_by(Machine.id).limit(wish.limit + 1)
    if wish.organisation_id is not None:
        rows = rows.where(Machine.organisation_id == wish.organisation_id)
    if wish.cluster_id is not None:
        rows = rows.where(Machine.cluster_id == wish.cluster_id)
    if live:
        rows = rows.where(Machine.state.in_(LIVE))
    if wish.after is not None:
        rows = rows.where(Machine.id > wish.after)
    return (await session.execute(rows)).scalars().all()


async def workloads(session: Session, wish: Slice) -> Sequence[Workload]:
    """Workloads by id."""
    rows = select(Workload).order_by(Workload.id).limit(wish.limit + 1)
    if wish.organisation_id is not None:
        rows = rows.where(Workload.organisation_id == wish.organisation_id)
    if wish.after is not None:
        rows = rows.where(Workload.id > wish.after)
    return (await session.execute(rows)).scalars().all()


async def decisions(session: Session, wish: Slice) -> Sequence[DecisionRecord]:
    """Stored decisions, newest first."""
    rows = select(DecisionRecord).order_by(DecisionRecord.id.desc()).limit(wish.limit + 1)
    if wish.organisation_id is not None:
        owned = select(Cluster.id).where(Cluster.resource_id.in_(_resources_of(wish.organisation_id)))
        rows = rows.where(DecisionRecord.cluster_id.in_(owned))
    if wish.cluster_id is not None:
        rows = rows.where(DecisionRecord.cluster_id == wish.cluster_id)
    if wish.after is not None:
        rows = rows.where(DecisionRecord.id < wish.after)
    return (await session.execute(rows)).scalars().all()


def _resources_of(organisation_id: UUID) -> Select[UUID]:
    return select(Resource.id).where(Resource.organisation_id == organisation_id)


Position = tuple[int, int]
"""Where a reader of the event log stands: transaction (`ActionRecord.transaction`) and number."""

# A transaction that others have open for long (a backup, a person's session, another database) writes no event: it is
# told from ours by its locks, for ours has one on a table of this schema from before it has its number until its end.
# One whose locks are not seen may be ours. Locks are looked at only where something runs.
_SETTLED = text("""action_event.transaction < (
    with running as materialized (
        select xip, xip::xid as short from pg_snapshot_xip(pg_current_snapshot()) as xip
    ),
    locks as materialized (
        select locktype, transactionid, virtualtransaction, relation, database from pg_locks
        where granted and locktype in ('transactionid', 'relation') and exists (select from running)
    ),
    strange as (
        select one.transactionid from locks one where one.locktype = 'transactionid' and not exists (
            select from locks held join pg_class on pg_class.oid = held.relation
            where held.virtualtransaction = one.virtualtransaction and held.locktype = 'relation'
                and held.database = (select oid from pg_database where datname = current_database())
                and pg_class.relnamespace = current_schema()::regnamespace
        )
    )
    select coalesce(min(xip::text::bigint), pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
    from running where not exists (select from strange where strange.transactionid = running.short)
)""")


@dataclass(frozen=True, slots=True)
class Whose:
    """Which part of the event log a reader may see and wants to."""

    organisation_id: UUID | None
    """None: of all organisations."""
    cluster_id: UUID | None = None


async def events(
    session: Session, after: Position | None, whose: Whose, limit: int, *, newest: bool = False
) -> Sequence[ActionRecord]:
    """Action events in an order that never gains a row behind a reader's back.

    A row is shown once every transaction of ours that is older than its own, or than the newest that had ended when it
    was written, has ended: what commits late still comes after, and an end after what it ends.
    """
    rows: Select[Any] = select(ActionRecord).where(_SETTLED)
    if after is not None:
        rows = rows.where(tuple_(ActionRecord.transaction, ActionRecord.number) > tuple_(*after))
    if whose.organisation_id is not None:
        rows = rows.where(ActionRecord.resource_id.in_(_resources_of(whose.organisation_id)))
    if whose.cluster_id is not None:
        rows = rows.where(ActionRecord.cluster_id == whose.cluster_id)
    order = (ActionRecord.transaction, ActionRecord.number)
    ordered = rows.order_by(*(column.desc() for column in order)) if newest else rows.order_by(*order)
    found: Sequence[ActionRecord] = (await session.execute(ordered.limit(limit))).scalars().all()
    return found[::-1] if newest else found
