"""What stats hears besides samples: resources, inventory, and everything that workload did."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert

from libs.common.contracts.action import LimitsApplied, MachineFact
from libs.common.contracts.base import Event
from libs.common.contracts.resource import InventoryChanged, ResourceChanged
from libs.common.db import Session
from services.stats.domain.samples import clean_text
from services.stats.domain.spans import Told, spans_of
from services.stats.models import action_event, cluster, host, inventory, machine_span, resource

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

_TOUCH_FROM = text("""
    insert into dirty_hour (cluster_id, hour, touched)
    select cluster_id, hour, 1 from (
        select distinct cluster_id, date_trunc('hour', at - interval '1 microsecond', 'UTC') as hour
        from cluster_sample
        where cluster_id = any(cast(:ids as uuid[]))
            and at > date_trunc('hour', cast(:since as timestamptz), 'UTC')
            and at > (select cast(min(day) as timestamp) at time zone 'UTC' from sample_day)
    ) as sampled
    order by cluster_id, hour
    on conflict (cluster_id, hour) do update set touched = dirty_hour.touched + 1
""")
"""Every hour since then of which there are samples, rolled up or being rolled up just now.

Of the last hour before the oldest day nothing is left but an interval that ended at midnight: that hour stays as it is.
"""


async def learn_resource(session: Session, event: ResourceChanged) -> None:
    """Remember whose resource it is."""
    values = {
        "organisation_id": event.organisation_id,
        "name": clean_text(event.name, 400),
        "revision": event.revision,
        "gone": event.gone,
    }
    row = insert(resource).values(id=event.resource_id, **values)
    newer = resource.c.revision < event.revision
    await session.execute(row.on_conflict_do_update(index_elements=["id"], set_=values, where=newer))


async def learn_inventory(session: Session, event: InventoryChanged) -> None:
    """Remember how many cores each host has; hours that were rolled up without knowing are done again."""
    row = insert(inventory).values(resource_id=event.resource_id, revision=event.revision)
    taken = await session.scalar(
        row.on_conflict_do_update(
            index_elements=["resource_id"],
            set_={"revision": event.revision},
            where=inventory.c.revision < event.revision,
        ).returning(inventory.c.resource_id)
    )
    if taken is None:
        return
    clusters = sorted(event.clusters, key=lambda found: found.cluster_id)
    new: list[UUID] = []
    for found in clusters:
        known = await session.scalars(select(host.c.host).where(host.c.cluster_id == found.cluster_id))
        unknown = {facts.host for facts in found.hosts} - set(known)
        new += [found.cluster_id] if unknown else []
    if new:  # hours before clusters: the order in which samples lock them
        await session.execute(_TOUCH_FROM, {"ids": sorted(new), "since": _BEGINNING})
    for found in clusters:
        named = insert(cluster).values(
            id=found.cluster_id, resource_id=event.resource_id, name=clean_text(found.name, 400)
        )
        await session.execute(
            named.on_conflict_do_update(index_elements=["id"], set_={"name": named.excluded.name})
        )
        for facts in found.hosts:
            cores = min(max(facts.cores, 0), 100_000)
            counted = insert(host).values(
                cluster_id=found.cluster_id, host=clean_text(facts.host), cores=cores
            )
            await session.execute(
                counted.on_conflict_do_update(index_elements=["cluster_id", "host"], set_={"cores": cores})
            )


async def learn_action(session: Session, event: Event) -> None:
    """Keep what happened, once by its id; a machine's facts also say when it ran."""
    row = insert(action_event).values(**_values(event)).on_conflict_do_nothing()
    new = await session.scalar(row.returning(action_event.c.id))
    if new is not None and isinstance(event, MachineFact):
        await _learn_spans(session, event)


async def _learn_spans(session: Session, event: MachineFact) -> None:
    query = (
        select(action_event)
        .where(action_event.c.machine_id == event.machine_id)
        .order_by(action_event.c.at, action_event.c.id)
    )
    await session.execute(
        text("select pg_advisory_xact_lock(hashtextextended('machine/' || :id, 0))"),
        {"id": str(event.machine_id)},
    )  # two facts of one machine may be handled at once, and each must see the other
    facts = (await session.execute(query)).all()
    last = facts[-1]
    await session.execute(delete(machine_span).where(machine_span.c.machine_id == event.machine_id))
    spans = [
        {
            "machine_id": event.machine_id,
            "running_from": span.running_from,
            "running_to": span.running_to,
            "cluster_id": last.cluster_id,
            "organisation_id": last.organisation_id,
            "vcpus": max(1, *(fact.vcpus for fact in facts)),
        }
        for span in spans_of(Told(fact.key, fact.at) for fact in facts)
    ]
    if spans:
        await session.execute(insert(machine_span), spans)
    await session.execute(_TOUCH_FROM, {"ids": [event.cluster_id], "since": event.at})


def _values(event: Any) -> dict[str, Any]:
    is_machine = isinstance(event, MachineFact)
    return {
        "id": event.id,
        "key": event.key,
        "at": event.at,
        "resource_id": event.resource_id,
        "cluster_id": getattr(event, "cluster_id", None),
        "machine_id": event.machine_id if is_machine else None,
        "organisation_id": event.organisation_id if is_machine else None,
        "name": clean_text(event.name) if is_machine else "",
        "vcpus": min(max(event.vcpus, 0), 100_000) if is_machine else 0,
        "changes": min(max(event.changes, 0), 1_000_000) if isinstance(event, LimitsApplied) else 0,
        "reason": clean_text(getattr(event, "reason", ""), 500),
    }
