"""What workload remembers of what other services say: resources, policies, templates, contributions."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import false, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from libs.common.contracts.derivation import DerivationChanged
from libs.common.contracts.lenient import CAREFUL
from libs.common.contracts.resource import InventoryChanged, Mode, ResourceChanged
from libs.common.contracts.supply import (
    ContributionChanged,
    GuestHealthChanged,
    MachineDrained,
    PolicyAssigned,
    TemplateChanged,
    TemplateState,
)
from libs.common.db import Session
from services.workload.domain.states import LIVE, Wanted
from services.workload.domain.words import revoked
from services.workload.models import (
    Assignment,
    Base,
    Cluster,
    Contribution,
    Derivation,
    Machine,
    Resource,
    Template,
)

_LONGEST, _LONGEST_WORD = 300, 20


async def remember_resource(session: Session, event: ResourceChanged) -> bool:
    """Take the newest state of a resource; False when it is known. One that is lent again is no longer released."""
    row = event.model_dump(
        include={
            "revision", "organisation_id", "name", "provider", "url", "settings", "username", "sealed_secret",
            "ca_pem", "thumbprint", "force", "gone", "interval_s", "probe_id", "probe_until",
            "stand_in_id",
        }
    )  # fmt: skip
    told = row | {"mode": event.mode.value, "retry_at": None}
    later = {"probe_id": None, "probe_until": None, "stand_in_id": None, "mode": CAREFUL[Mode].value}
    taken = await _take(session, Resource, {"id": event.resource_id}, told, later)
    if taken and event.mode.value != "draining":
        await session.execute(update(Resource).where(Resource.id == event.resource_id).values(released=False))
    return taken


_ENSURE = text("""
    insert into cluster
        (id, resource_id, ref, name, interval_s, reason, cap_mhz, budgets_mhz, floor_mhz_per_vcpu, drain_grace_s,
         draining, deploy_failures, superseded, clock_offset_s, occupied)
    select id, :resource_id, ref, name, 20.0, 'not judged yet', 0.0, '{}', 200.0, 600.0, false, 0, 0, 0.0, false
    from unnest(cast(:ids as uuid[]), cast(:refs as text[]), cast(:names as text[])) as given (id, ref, name)
    order by id
    on conflict (id) do update set name = excluded.name where cluster.name <> excluded.name
""")
"""A round's clusters in one statement, each row locked in the same order by everybody."""


async def remember_inventory(session: Session, event: InventoryChanged) -> None:
    """Make sure that a row stands for every cluster, so that silence about one is noticed."""
    if await session.get(Resource, event.resource_id) is None:
        return
    seen = [(facts.cluster_id, facts.cluster, facts.name) for facts in event.clusters]
    await ensure_clusters(session, event.resource_id, seen)
    for facts in sorted(event.clusters, key=lambda facts: facts.cluster_id):
        core_mhz = max(
            (host.cpu_capacity_mhz / host.cores for host in facts.hosts if host.cores > 0), default=None
        )
        is_other = Cluster.core_mhz.is_distinct_from(core_mhz)
        faster = update(Cluster).where(Cluster.id == facts.cluster_id, is_other)
        await session.execute(faster.values(core_mhz=core_mhz))


async def ensure_clusters(session: Session, resource_id: UUID, seen: Iterable[tuple[UUID, str, str]]) -> None:
    """A row for each cluster (id, reference, name), made on first sight; renamed ones keep their row."""
    given = sorted(seen)
    if given:
        columns = zip(*given, strict=True)
        ids, refs, names = map(list, columns)
        await session.execute(_ENSURE, {"resource_id": resource_id, "ids": ids, "refs": refs, "names": names})


async def remember_policy(session: Session, event: PolicyAssigned) -> None:
    """Take the newest assignment of a policy."""
    row = event.model_dump(
        include={"revision", "policy_id", "policy_name", "policy_revision", "document", "gone"}
    )
    more = {"quota": event.document.get("quota")}
    key = {"scope": event.scope.value, "scope_id": event.scope_id}
    await _take(session, Assignment, key, row | more, later={"quota": None})


async def remember_template(session: Session, event: TemplateChanged) -> None:
    """Take the newest state of a template version; a revoked one gives up its machines."""
    row = event.model_dump(
        include={"revision", "organisation_id", "name", "version", "resource_id", "reference", "disk_gib"}
    )
    state = TemplateState.REVOKED if event.gone else event.state
    if state is TemplateState.REVOKED:
        # Who judges by the old state ends first: what it made is seen below.
        clusters = select(Cluster.id).where(Cluster.resource_id == event.resource_id).order_by(Cluster.id)
        await session.execute(clusters.with_for_update(key_share=True))
    later = {"state": CAREFUL[TemplateState].value, "components": []}
    told = row | {"state": state.value, "components": list(event.components)}
    taken = await _take(session, Template, {"version_id": event.version_id}, told, later)
    if taken and state is TemplateState.REVOKED:
        await session.execute(
            update(Machine)
            .where(Machine.template_version_id == event.version_id, Machine.state.in_(LIVE))
            .values(
                wanted=Wanted.GONE,
                wanted_by_hand=True,
                reason=revoked(event.name, event.version),
            )
        )


async def remember_derivation(session: Session, event: DerivationChanged) -> None:
    """Take the newest state of an image that is being made."""
    row = event.model_dump(
        include={
            "revision", "organisation_id", "resource_id", "version_id", "name", "version", "ca_pem", "proxy", "until",
            "over", "kept", "outcome",
        }
    )  # fmt: skip
    key = {"id": event.derivation_id}
    await _take(session, Derivation, key, row | {"components": list(event.components)})


async def remember_contribution(session: Session, event: ContributionChanged) -> None:
    """Take the newest state of a contribution."""
    row = event.model_dump(
        include={
            "revision", "organisation_id", "project_id", "project_name", "project_url", "weight",
            "sealed_authenticator", "priority", "most_machines", "most_vcpus",
        }
    )  # fmt: skip
    ids = None if event.resource_ids is None else [str(resource_id) for resource_id in event.resource_ids]
    more = {"active": event.active and not event.gone, "resource_ids": ids}
    later = {"priority": 0, "most_machines": None, "most_vcpus": None}
    await _take(session, Contribution, {"id": event.contribution_id}, row | more, later)


async def remember_drained(session: Session, event: MachineDrained) -> None:
    """The guest has ended its work: the rest of the grace saves nothing."""
    machine = update(Machine).where(Machine.id == event.machine_id)
    await session.execute(machine.values(drained_at=event.at, lost_cpu_s=event.lost_cpu_s))


async def remember_health(session: Session, event: GuestHealthChanged) -> None:
    """How the guest does; an old word that comes late moves nothing. One that works ends a row of failures.

    Only a machine that was made after the last failure does: what worked all along says nothing about new ones.
    """
    known = select(Machine.cluster_id, Machine.created_at).where(Machine.id == event.machine_id)
    row = (await session.execute(known)).first()
    if row is None:
        return
    if event.health == "working":  # before the machine's row: rows are locked in one order everywhere
        is_newer = Cluster.guest_failed_at.is_(None) | (Cluster.guest_failed_at <= row.created_at)
        failed = (Cluster.id == row.cluster_id) & (Cluster.guest_failures > 0)
        await session.execute(update(Cluster).where(failed, is_newer).values(guest_failures=0))
    is_news = Machine.health_at.is_(None) | (Machine.health_at <= event.at)
    mine = update(Machine).where(Machine.id == event.machine_id, is_news)
    health, why = event.health[:_LONGEST_WORD], event.why[:_LONGEST] or None
    await session.execute(mine.values(health=health, health_at=event.at, health_why=why))


async def _take(
    session: Session,
    table: type[Base],
    key: dict[str, Any],
    row: dict[str, Any],
    later: dict[str, Any] | None = None,
) -> bool:
    """Insert or replace the row if this revision is newer than the known one; False when it is not.

    `later` are columns that a process of before does not know, or whose word it did not know, with what they are then:
    told again, a revision that such a one took is taken once more for what it left out.
    """
    columns = table.__table__.columns
    fresh = {name: False for name in ("released", "force", "gone") if name in columns} | {
        name: 0 for name in ("failures",) if name in columns
    }
    values = insert(table).values(**(fresh | row | key))
    was_left_out = [
        columns[name].is_not_distinct_from(unset) & values.excluded[name].is_distinct_from(unset)
        for name, unset in (later or {}).items()
    ]
    is_same = columns["revision"] == values.excluded["revision"]
    is_newer = columns["revision"] < values.excluded["revision"]
    taken = await session.execute(
        values.on_conflict_do_update(
            index_elements=list(key),
            set_={name: values.excluded[name] for name in row},
            where=or_(is_newer, is_same & or_(false(), *was_left_out)),
        ).returning(columns["revision"])
    )
    return taken.first() is not None
