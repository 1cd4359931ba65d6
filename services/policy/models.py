"""Tables of policy."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, String, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from libs.common.db import Utc, new_metadata


class Base(DeclarativeBase):
    """Tables of this service's schema."""

    metadata = new_metadata()


class Policy(Base):
    """A policy by name; `revision` is the newest of its revisions."""

    __tablename__ = "policy"
    __table_args__ = (UniqueConstraint("organisation_id", "name"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organisation_id: Mapped[UUID]
    name: Mapped[str] = mapped_column(String(200))
    revision: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(Utc)
    updated_at: Mapped[datetime] = mapped_column(Utc)


class Revision(Base):
    """What a policy said at one time; never changed."""

    __tablename__ = "policy_revision"

    policy_id: Mapped[UUID] = mapped_column(ForeignKey("policy.id", ondelete="CASCADE"), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(Utc)
    created_by: Mapped[str] = mapped_column(String(200))


class Assignment(Base):
    """What is in force for a resource or a cluster. The row outlives its end: its revision only rises."""

    __tablename__ = "assignment"

    scope: Mapped[str] = mapped_column(String(16), primary_key=True)
    scope_id: Mapped[UUID] = mapped_column(primary_key=True)
    policy_id: Mapped[UUID | None] = mapped_column(ForeignKey("policy.id", ondelete="SET NULL"), index=True)
    resource_id: Mapped[UUID | None] = mapped_column(index=True)
    """Whose end is the assignment's: also where the cluster has left the inventory before."""
    revision: Mapped[int]
    size: Mapped[dict[str, int] | None] = mapped_column(JSONB(none_as_null=True))
    """What the policy's size by name stands for here: `vcpus` and `memory_mib`; None: it gives numbers itself."""
    assigned_at: Mapped[datetime] = mapped_column(Utc)


class KnownResource(Base):
    """A resource that registry or monitor has spoken of."""

    __tablename__ = "known_resource"

    resource_id: Mapped[UUID] = mapped_column(primary_key=True)
    organisation_id: Mapped[UUID | None]
    revision: Mapped[int] = mapped_column(BigInteger, default=-1)
    inventory_revision: Mapped[int] = mapped_column(BigInteger, default=-1)
    gone: Mapped[bool] = mapped_column(default=False)


class KnownCluster(Base):
    """A cluster that monitor has seen."""

    __tablename__ = "known_cluster"

    cluster_id: Mapped[UUID] = mapped_column(primary_key=True)
    resource_id: Mapped[UUID] = mapped_column(index=True)
    name: Mapped[str] = mapped_column(String(400))
    hosts: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, default=list, server_default="[]")
    """What each has, for sizes by name."""
