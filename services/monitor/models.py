"""Tables of monitor."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import String, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from libs.common.db import Utc, new_metadata


class Base(DeclarativeBase):
    """Tables of this service's schema."""

    metadata = new_metadata()
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own name
        datetime: Utc,
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
    }


class Replica(Base):
    """A monitor process that is alive until then, by the database's clock; resources are shared out evenly."""

    __tablename__ = "replica"

    token: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    alive_until: Mapped[datetime]
    since: Mapped[datetime] = mapped_column(server_default=func.now())


class Resource(Base):
    """A projection of registry's resource, its lease, and how far its samples have been published.

    A gone resource stays as a row without secrets, so that an old message cannot bring it back.
    """

    __tablename__ = "resource"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int]
    gone: Mapped[bool] = mapped_column(default=False)
    organisation_id: Mapped[UUID]
    name: Mapped[str]
    provider: Mapped[str]
    url: Mapped[str]
    settings: Mapped[dict[str, Any]]
    username: Mapped[str]
    sealed_secret: Mapped[str]
    ca_pem: Mapped[str | None]
    thumbprint: Mapped[str | None]
    mode: Mapped[str]
    interval_s: Mapped[float]

    lease_token: Mapped[UUID | None] = mapped_column(index=True)
    """The replica that holds the resource."""
    lease_until: Mapped[datetime | None]
    """By the database's clock."""

    marks: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    """Per cluster the end of the newest published interval, on the cloud's clock."""
    sampled_at: Mapped[datetime | None]
    """The newest mark that is not beyond the cloud's own present."""
    received_at: Mapped[datetime | None]
    clock_offset_s: Mapped[float] = mapped_column(default=0.0, server_default="0")
    due_at: Mapped[datetime | None]
    retry_at: Mapped[datetime | None]
    """Not before, after a failure."""
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    """In a row."""
    failing_since: Mapped[datetime | None]
    degraded_at: Mapped[datetime | None]
    """When the outage was said."""
    cause: Mapped[str | None]
    detail: Mapped[str | None]
    inventory: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default="[]")
    inventory_revision: Mapped[int] = mapped_column(default=0, server_default="0")
