"""Tables of registry."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Enum, Index, String, false, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from libs.common.contracts.resource import Mode
from libs.common.db import Utc, new_metadata
from services.registry.domain import Health

_MODE = Enum(Mode, native_enum=False, length=20, values_callable=lambda words: [word.value for word in words])
_HEALTH = Enum(
    Health, native_enum=False, length=20, values_callable=lambda words: [word.value for word in words]
)


class Base(DeclarativeBase):
    """Tables of this service's schema."""

    metadata = new_metadata()


class Resource(Base):
    """A registered endpoint. `revision` counts changes of what others are told; health and inventory do not."""

    __tablename__ = "resource"
    __table_args__ = (
        Index("uq_resource_identity", "identity", unique=True),
        Index("uq_resource_instance_identity", "instance_identity", unique=True),
        Index("uq_resource_name", "organisation_id", "name_key", unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organisation_id: Mapped[UUID] = mapped_column(index=True)
    revision: Mapped[int]
    name: Mapped[str] = mapped_column(String(100))
    name_key: Mapped[str | None]
    """What the name is compared by; None: another bore it already when names became unique."""
    provider: Mapped[str] = mapped_column(String(40))
    url: Mapped[str] = mapped_column(String(2000))
    identity: Mapped[str]
    """Canonical endpoint and scope, by the driver."""
    instance_identity: Mapped[str | None]
    """The same with the cloud's own id for its address: one cloud under two addresses is still one."""
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB)
    username: Mapped[str] = mapped_column(String(255))
    sealed_secret: Mapped[str]
    ca_pem: Mapped[str | None]
    thumbprint: Mapped[str | None] = mapped_column(String(100))
    alternate_username: Mapped[str | None] = mapped_column(String(255))
    """As whom the same cloud is asked while it refuses the first credential; None: as nobody else."""
    sealed_alternate: Mapped[str] = mapped_column(default="", server_default="")
    alternate_since: Mapped[datetime | None] = mapped_column(Utc)
    """Since when the alternate credential is in use; None: the first one is."""
    alternate_why: Mapped[str | None]
    """What the cloud said to the first one."""
    first_try_at: Mapped[datetime | None] = mapped_column(Utc)
    """When the first credential is tried again."""
    credential_revision: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Since which revision others are told the credential that is in use."""
    stand_in_id: Mapped[UUID | None]
    """The resource of the same organisation that takes over what is lent to this one alone, while it is away."""
    interval_s: Mapped[float]
    site: Mapped[str | None] = mapped_column(String(100))
    """Where it stands, as its owner calls the place."""
    declared: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """What is there, where the cloud shows no hosts."""
    mode: Mapped[Mode] = mapped_column(_MODE)
    force: Mapped[bool] = mapped_column(default=False)
    deleting: Mapped[bool] = mapped_column(default=False)
    draining_revision: Mapped[int | None]
    """The revision at which draining was last asked for."""
    forced_at: Mapped[datetime | None] = mapped_column(Utc)
    """Since when it is drained by force; None again with the next mode."""
    released_at: Mapped[datetime | None] = mapped_column(Utc)
    """Drained and nothing of ours left; None again with the next mode."""
    health: Mapped[Health] = mapped_column(_HEALTH, default=Health.UNKNOWN)
    health_cause: Mapped[str | None] = mapped_column(String(40))
    health_detail: Mapped[str | None]
    health_at: Mapped[datetime | None] = mapped_column(Utc)
    alarm: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    validation: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    capabilities: Mapped[list[str]] = mapped_column(JSONB, default=list)
    inventory: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, default=list)
    inventory_revision: Mapped[int] = mapped_column(default=0)
    requires_probe: Mapped[bool] = mapped_column(default=False, server_default=false())
    """One machine must reach a project before it is lent for the first time."""
    activated_at: Mapped[datetime | None] = mapped_column(Utc)
    """When it was first lent; None again with another cloud."""
    probe_id: Mapped[UUID | None]
    """The probe that goes on; None: none does."""
    probe_until: Mapped[datetime | None] = mapped_column(Utc)
    probe: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """How that probe does, or how the last one went."""
    created_at: Mapped[datetime] = mapped_column(Utc)
    updated_at: Mapped[datetime] = mapped_column(Utc)


class GoneResource(Base):
    """A resource that has ended, as it was last told: for who comes late, so that it goes there too."""

    __tablename__ = "gone_resource"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    state: Mapped[dict[str, Any]] = mapped_column(JSONB)


class Abandonment(Base):
    """A resource that was given up without asking its cloud, and what may run there still."""

    __tablename__ = "abandonment"

    resource_id: Mapped[UUID] = mapped_column(primary_key=True)
    organisation_id: Mapped[UUID] = mapped_column(index=True)
    name: Mapped[str] = mapped_column(String(100))
    provider: Mapped[str] = mapped_column(String(40))
    url: Mapped[str] = mapped_column(String(2000))
    at: Mapped[datetime] = mapped_column(Utc)
    by: Mapped[str]
    reason: Mapped[str]
    find: Mapped[str]
    """How to find the machines in the cloud, in words."""
    machines: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True))
    """None until workload has written them off."""
