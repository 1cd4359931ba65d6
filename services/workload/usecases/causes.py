"""Which decision stands behind an act: acts follow later, and mostly in another process, than what was judged."""

from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, select

from libs.common.db import Session
from services.workload.domain.steps import Act
from services.workload.models import DecisionRecord, Machine
from services.workload.usecases.limiting import LimitsDue
from services.workload.usecases.looking import Due

TRACE = ("traceparent", "tracestate")
"""W3C Trace Context, kept in what was decided while traces were collected."""


async def cause_of_limits(session: Session, due: LimitsDue) -> dict[str, str]:
    """The trace of the decision that wanted these limits; empty where it is not known, and for a mere look."""
    if not due.is_known_due:
        return {}
    return await _trace(session, due.cluster_id, due.action_id)


async def cause_of_act(session: Session, due: Due) -> dict[str, str]:
    """The trace of the decision that asked for a machine, or of the newest of its cluster for what is done to it."""
    if due.machine_id is None:
        return {}
    cluster = select(Machine.cluster_id).where(Machine.id == due.machine_id).scalar_subquery()
    return await _trace(session, cluster, due.machine_id if due.act is Act.CREATE else None)


async def _trace(session: Session, cluster: UUID | ScalarSelect[UUID], before: UUID | None) -> dict[str, str]:
    """Ids are ordered by time: what a decision asked for has the next one."""
    of_cluster: list[ColumnElement[bool]] = [DecisionRecord.cluster_id == cluster]
    if before is not None:
        of_cluster.append(DecisionRecord.id < before)
    newest = select(*(DecisionRecord.decision[name].astext for name in TRACE)).where(*of_cluster)
    found = (await session.execute(newest.order_by(DecisionRecord.at.desc()).limit(1))).one_or_none()
    if found is None:
        return {}
    return {name: told for name, told in zip(TRACE, found, strict=True) if told is not None}
