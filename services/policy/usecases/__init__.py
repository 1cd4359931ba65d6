"""What can be done with policies: one function, one transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, exists, func, literal, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from libs.common.auth import Principal, Role
from libs.common.contracts.resource import InventoryChanged, ResourceChanged
from libs.common.contracts.supply import PolicyAssigned, Scope
from libs.common.db import Session
from libs.common.errors import Problem, conflict, invalid, not_found
from libs.common.ids import new_id, state_id
from libs.common.paging import require_match
from libs.harvest.document import InvalidPolicy, dump, for_older, parse
from libs.harvest.types import Policy as EnginePolicy
from services.policy.domain.sized import fill, put_size, take_size, to_row
from services.policy.models import Assignment, KnownCluster, KnownResource, Policy, Revision
from services.policy.usecases import sizing

BATCH = 100
Place = tuple[str, UUID]
"""Of an assignment: its scope and the id there."""


def read(document: dict[str, Any]) -> tuple[EnginePolicy, str | None]:
    """The policy of a document, and its machines' size by name. Raises a 422 Problem that names the field."""
    try:
        with_numbers, size = take_size(document)
        return parse(with_numbers), size
    except InvalidPolicy as error:
        raise invalid(error.field or "body", str(error)) from None


async def create(session: Session, who: Principal, document: dict[str, Any], now: datetime) -> Policy:
    """Keep a new policy as revision 1. Raises 422 naming the field, 409 when the name is taken."""
    rules, size = read(document)
    policy = Policy(
        id=new_id(),
        organisation_id=who.organisation_id,
        name=rules.name,
        revision=1,
        created_at=now,
        updated_at=now,
    )
    session.add(policy)
    await _flush_name(session)
    session.add(_revision(policy, put_size(dump(rules), size), who, now))
    return policy


async def revise(
    session: Session,
    who: Principal,
    policy_id: UUID,
    if_match: str | None,
    document: dict[str, Any],
    now: datetime,
) -> Policy:
    """Add a revision and put it in force wherever the policy is assigned. Raises 412, 422, 428."""
    policy = await _locked(session, who, policy_id)
    require_match(if_match, policy.revision)
    rules, size = read(document)
    policy.name = rules.name
    policy.revision += 1
    policy.updated_at = now
    await _flush_name(session)
    revision = _revision(policy, put_size(dump(rules), size), who, now)
    session.add(revision)
    moved = await session.scalars(
        update(Assignment)
        .where(Assignment.policy_id == policy_id)
        .values(revision=Assignment.revision + 1)
        .returning(Assignment)
    )
    for assignment in moved.all():
        assignment.size = await sizing.resolve(
            session, revision.document, assignment.scope, assignment.scope_id
        )
        session.emit(_assigned(assignment, policy, revision.document, now))
    return policy


async def remove(session: Session, who: Principal, policy_id: UUID) -> None:
    """Forget a policy. Raises 409 while it is assigned anywhere."""
    await _locked(session, who, policy_id)
    if await session.scalar(select(Assignment.scope_id).where(Assignment.policy_id == policy_id).limit(1)):
        raise conflict("The policy is assigned.", "Remove its assignments first.")
    await session.execute(delete(Policy).where(Policy.id == policy_id))


async def find(session: Session, who: Principal, policy_id: UUID) -> Policy:
    """One policy of the caller's organisation; an admin sees all. Raises 404."""
    policy = await session.get(Policy, policy_id)
    if policy is None or not _may_see(who, policy.organisation_id):
        raise not_found("policy")
    return policy


async def page(session: Session, who: Principal, after: UUID | None, limit: int) -> Sequence[Policy]:
    """Policies in the order they were made, beginning after this id."""
    query = select(Policy).order_by(Policy.id).limit(limit)
    if who.role is not Role.ADMIN:
        query = query.where(Policy.organisation_id == who.organisation_id)
    if after is not None:
        query = query.where(Policy.id > after)
    return (await session.scalars(query)).all()


async def revisions(session: Session, who: Principal, policy_id: UUID, limit: int) -> Sequence[Revision]:
    """The newest revisions, newest first."""
    await find(session, who, policy_id)
    query = select(Revision).where(Revision.policy_id == policy_id).order_by(Revision.revision.desc())
    return (await session.scalars(query.limit(limit))).all()


async def document_of(session: Session, policy: Policy) -> dict[str, Any]:
    """What the policy says now."""
    found = await session.get_one(Revision, (policy.id, policy.revision))
    return found.document


async def documents_of(session: Session, policies: Sequence[Policy]) -> dict[UUID, dict[str, Any]]:
    """What each of these policies says now."""
    query = (
        select(Revision.policy_id, Revision.document)
        .join(Policy, (Policy.id == Revision.policy_id) & (Policy.revision == Revision.revision))
        .where(Policy.id.in_([policy.id for policy in policies]))
    )
    return {row.policy_id: row.document for row in await session.execute(query)}


async def assign(
    session: Session, who: Principal, policy_id: UUID, scope: Scope, scope_id: UUID, now: datetime
) -> Assignment:
    """Put the policy in force for a resource or cluster, instead of any other. Raises 422."""
    policy = await _locked(session, who, policy_id)
    document = await document_of(session, policy)
    values = {
        "policy_id": policy_id,
        "resource_id": await _resource_of(session, who, scope, scope_id),
        "size": await sizing.resolve(session, document, scope, scope_id),
        "assigned_at": now,
    }
    row = insert(Assignment).values(scope=scope.value, scope_id=scope_id, revision=1, **values)
    assignment = (
        await session.scalars(
            row.on_conflict_do_update(
                index_elements=["scope", "scope_id"],
                set_={**values, "revision": Assignment.revision + 1},
            ).returning(Assignment),
            execution_options={"populate_existing": True},
        )
    ).one()
    session.emit(_assigned(assignment, policy, document, now))
    return assignment


async def unassign(
    session: Session, who: Principal, policy_id: UUID, scope: Scope, scope_id: UUID, now: datetime
) -> None:
    """End an assignment. Raises 404 when this policy is not assigned there."""
    policy = await _locked(session, who, policy_id)
    where = (Assignment.scope == scope.value) & (Assignment.scope_id == scope_id)
    assignment = await session.scalar(
        select(Assignment).where(where & (Assignment.policy_id == policy_id)).with_for_update()
    )
    if assignment is None:
        raise not_found("assignment of this policy")
    await _end(session, assignment, policy, now)


async def assignments(session: Session, who: Principal, policy_id: UUID) -> Sequence[Assignment]:
    """Where the policy is in force."""
    await find(session, who, policy_id)
    query = select(Assignment).where(Assignment.policy_id == policy_id)
    return (await session.scalars(query.order_by(Assignment.assigned_at, Assignment.scope_id))).all()


async def read_states(session: Session, after: Place | None) -> tuple[Sequence[PolicyAssigned], Place | None]:
    """The next few assignments as they are in force, the ended ones as gone, and where to go on."""
    place = tuple_(Assignment.scope, Assignment.scope_id)
    query = (
        select(Assignment, Policy, Revision.document)
        .outerjoin(Policy, Policy.id == Assignment.policy_id)
        .outerjoin(Revision, (Revision.policy_id == Policy.id) & (Revision.revision == Policy.revision))
        .order_by(Assignment.scope, Assignment.scope_id)
        .limit(BATCH)
    )
    if after is not None:
        query = query.where(place > tuple_(literal(after[0]), literal(after[1])))
    rows = (await session.execute(query)).all()
    states = [
        _ended(assignment)
        if policy is None
        else _assigned(assignment, policy, document, assignment.assigned_at)
        for assignment, policy, document in rows
    ]
    return states, (states[-1].scope.value, states[-1].scope_id) if len(states) == BATCH else None


async def learn_resource(session: Session, event: ResourceChanged) -> None:
    """Remember that the resource exists; when it goes, what was assigned to it and its clusters ends."""
    row = insert(KnownResource).values(
        resource_id=event.resource_id,
        organisation_id=event.organisation_id,
        revision=event.revision,
        inventory_revision=-1,
        gone=event.gone,
    )
    taken = await session.scalar(
        row.on_conflict_do_update(
            index_elements=["resource_id"],
            set_={"organisation_id": event.organisation_id, "revision": event.revision, "gone": event.gone},
            where=KnownResource.revision < event.revision,
        ).returning(KnownResource.resource_id)
    )
    if taken is not None and event.gone:
        await _end_everything_on(session, event.resource_id, event.at)


async def learn_inventory(session: Session, event: InventoryChanged) -> None:
    """Remember the clusters of a resource; those that left the newest inventory are forgotten.

    The same one is taken again where a process of before took it, which passed over the hosts (decision 0049).
    """
    row = insert(KnownResource).values(
        resource_id=event.resource_id, revision=-1, inventory_revision=event.revision, gone=False
    )
    without_hosts = exists().where(
        KnownCluster.resource_id == event.resource_id, func.jsonb_array_length(KnownCluster.hosts) == 0
    )
    is_same = (KnownResource.inventory_revision == event.revision) & without_hosts
    taken = await session.scalar(
        row.on_conflict_do_update(
            index_elements=["resource_id"],
            set_={"inventory_revision": event.revision},
            where=or_(KnownResource.inventory_revision < event.revision, is_same),
        ).returning(KnownResource.resource_id)
    )
    if taken is None:
        return
    await session.execute(delete(KnownCluster).where(KnownCluster.resource_id == event.resource_id))
    for cluster in event.clusters if not event.gone else ():
        await session.execute(
            insert(KnownCluster)
            .values(
                cluster_id=cluster.cluster_id,
                resource_id=event.resource_id,
                name=cluster.name[:400],
                hosts=[to_row(host) for host in cluster.hosts],
            )
            .on_conflict_do_nothing()
        )
    await _follow_sizes(session, event)


async def _follow_sizes(session: Session, event: InventoryChanged) -> None:
    """Hosts came or went: a size by name may stand for other numbers. Where it stands for none any more it stays."""
    sized = (Assignment.resource_id == event.resource_id) & Assignment.size.is_not(None)
    places = select(Assignment.policy_id, Assignment.scope, Assignment.scope_id)
    query = places.where(sized, Assignment.policy_id.is_not(None)).order_by(Assignment.policy_id)
    for policy_id, scope, scope_id in (await session.execute(query)).all():
        assignment = await session.get_one(Assignment, (scope, scope_id), with_for_update=True)
        # Read after the lock: who revises the policy waits for this assignment, or was waited for here.
        policy = await session.get(Policy, policy_id, populate_existing=True)
        if policy is None or assignment.policy_id != policy_id:
            continue
        document = await document_of(session, policy)
        try:
            size = await sizing.resolve(session, document, scope, scope_id)
        except Problem:
            continue
        if size != assignment.size:
            assignment.size = size
            assignment.revision += 1
            session.emit(_assigned(assignment, policy, document, event.at))


async def _end_everything_on(session: Session, resource_id: UUID, now: datetime) -> None:
    """Also of clusters that left the inventory before."""
    query = select(Assignment).where(Assignment.policy_id.is_not(None), Assignment.resource_id == resource_id)
    for assignment in (await session.scalars(query.with_for_update())).all():
        await _end(session, assignment, await session.get_one(Policy, assignment.policy_id), now)
    await session.execute(delete(KnownCluster).where(KnownCluster.resource_id == resource_id))


async def _end(session: Session, assignment: Assignment, policy: Policy, now: datetime) -> None:
    assignment.policy_id = None
    assignment.revision += 1
    event = _assigned(assignment, policy, await document_of(session, policy), now)
    session.emit(event.model_copy(update={"gone": True}))


async def _resource_of(session: Session, who: Principal, scope: Scope, scope_id: UUID) -> UUID:
    """The resource that this is, or is a cluster of; it does not end before the transaction. Raises 422."""
    resource_id: UUID | None = scope_id
    if scope is Scope.CLUSTER:
        query = select(KnownCluster.resource_id).where(KnownCluster.cluster_id == scope_id)
        resource_id = await session.scalar(query)
    held: dict[str, Any] = {"read": True}
    resource = await session.get(KnownResource, resource_id, with_for_update=held) if resource_id else None
    owner = resource.organisation_id if resource is not None else None
    if resource is None or resource.gone or (owner is not None and not _may_see(who, owner)):
        remedy = "Register the resource first; its clusters are known after the first sample."
        raise invalid("scope_id", f"No {scope.value} with this id is known.", remedy)
    if owner is None and who.role is not Role.ADMIN:
        raise invalid("scope_id", f"Whose {scope.value} this is, is not known yet.", "Try again in a moment.")
    return resource.resource_id


async def _locked(session: Session, who: Principal, policy_id: UUID) -> Policy:
    policy = await session.scalar(select(Policy).where(Policy.id == policy_id).with_for_update())
    if policy is None or not _may_see(who, policy.organisation_id):
        raise not_found("policy")
    return policy


async def _flush_name(session: Session) -> None:
    try:
        await session.flush()
    except IntegrityError:
        raise conflict("A policy of this name exists.", "Choose another name.", "name") from None


def _may_see(who: Principal, organisation_id: UUID) -> bool:
    return who.role is Role.ADMIN or who.organisation_id == organisation_id


def _revision(policy: Policy, document: dict[str, Any], who: Principal, now: datetime) -> Revision:
    # Whole, with today's defaults: a revision says the same for ever.
    return Revision(
        policy_id=policy.id,
        revision=policy.revision,
        document=document,
        created_at=now,
        created_by=who.name[:200],
    )


def _assigned(
    assignment: Assignment, policy: Policy, document: dict[str, Any], now: datetime
) -> PolicyAssigned:
    subject = f"{assignment.scope}/{assignment.scope_id}"
    return PolicyAssigned(
        id=state_id(PolicyAssigned.key, subject, assignment.revision),
        at=now,
        revision=assignment.revision,
        scope=Scope(assignment.scope),
        scope_id=assignment.scope_id,
        policy_id=policy.id,
        policy_name=policy.name,
        policy_revision=policy.revision,
        document=for_older(fill(document, assignment.size)),
    )


def _ended(assignment: Assignment) -> PolicyAssigned:
    """What is left to say of an assignment whose policy may be gone too."""
    subject = f"{assignment.scope}/{assignment.scope_id}"
    return PolicyAssigned(
        id=state_id(PolicyAssigned.key, subject, assignment.revision),
        at=assignment.assigned_at,
        revision=assignment.revision,
        gone=True,
        scope=Scope(assignment.scope),
        scope_id=assignment.scope_id,
        policy_id=UUID(int=0),
        policy_name="",
        policy_revision=0,
        document={},
    )


async def count_assignments(session: Session, policies: Sequence[Policy]) -> dict[UUID, int]:
    """How many assignments each policy has."""
    query = (
        select(Assignment.policy_id, func.count())
        .where(Assignment.policy_id.in_([policy.id for policy in policies]))
        .group_by(Assignment.policy_id)
    )
    return {policy_id: count for policy_id, count in await session.execute(query) if policy_id is not None}
