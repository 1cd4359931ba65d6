"""Every action event goes out through the outbox and into the event log, in the transaction of what it speaks of."""

from uuid import UUID

from libs.common.contracts.base import Event
from libs.common.db import Session
from services.workload.models import ActionRecord


def record(session: Session, event: Event) -> None:
    """Emit the event and keep it for `GET /v1/events`."""
    session.emit(event)
    session.add(
        ActionRecord(
            id=event.id,
            key=event.key,
            at=event.at,
            resource_id=_part(event, "resource_id"),
            cluster_id=_part(event, "cluster_id"),
            machine_id=_part(event, "machine_id"),
            body=event.model_dump(mode="json"),
        )
    )


def _part(event: Event, name: str) -> UUID | None:
    part: UUID | None = getattr(event, name, None)
    return part
