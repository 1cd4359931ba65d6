"""Tables of templates."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from libs.common.db import Utc, new_metadata


class Base(DeclarativeBase):
    """Tables of this service's schema."""

    metadata = new_metadata()


class Template(Base):
    """A template of a resource, by the name that policies use."""

    __tablename__ = "template"
    __table_args__ = (UniqueConstraint("resource_id", "name"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organisation_id: Mapped[UUID]
    resource_id: Mapped[UUID]
    name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(Utc)


class Version(Base):
    """One image of a template; only its state and what the last look found ever change."""

    __tablename__ = "template_version"
    __table_args__ = (UniqueConstraint("template_id", "version"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    template_id: Mapped[UUID] = mapped_column(ForeignKey("template.id"))
    version: Mapped[int]
    reference: Mapped[str] = mapped_column(String(400))
    disk_gib: Mapped[float]
    guest_os: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(16))
    revision: Mapped[int]
    missing: Mapped[bool]
    checked_at: Mapped[datetime] = mapped_column(Utc)
    created_at: Mapped[datetime] = mapped_column(Utc)
    derived_from: Mapped[UUID | None] = mapped_column(ForeignKey("template_version.id"))
    components: Mapped[list[str]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    """What the image holds, so that no machine installs it; words of libs.boinc.image.Component."""


class Derivation(Base):
    """A version that is made from another by a machine of ours; the version that comes of it has its id."""

    __tablename__ = "derivation"
    __table_args__ = (
        Index("uq_derivation_running", "source_id", unique=True, postgresql_where=text("state = 'running'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    template_id: Mapped[UUID] = mapped_column(ForeignKey("template.id"), index=True)
    source_id: Mapped[UUID] = mapped_column(ForeignKey("template_version.id"))
    components: Mapped[list[str]] = mapped_column(JSONB)
    ca_pem: Mapped[str | None] = mapped_column(Text)
    proxy: Mapped[str | None] = mapped_column(Text)
    auto_approve: Mapped[bool]
    asked_by: Mapped[str] = mapped_column(Text)
    until: Mapped[datetime] = mapped_column(Utc)
    state: Mapped[str] = mapped_column(String(16))
    step: Mapped[str] = mapped_column(String(20))
    """How far workload says that it is; one of its words."""
    reason: Mapped[str] = mapped_column(Text)
    """Why it is no further, or how it ended."""
    machine_id: Mapped[UUID | None]
    revision: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(Utc)
    ended_at: Mapped[datetime | None] = mapped_column(Utc)


class KnownResource(Base):
    """A resource as registry last described it; its secret stays sealed."""

    __tablename__ = "known_resource"

    resource_id: Mapped[UUID] = mapped_column(primary_key=True)
    organisation_id: Mapped[UUID]
    provider: Mapped[str] = mapped_column(Text)
    url: Mapped[str] = mapped_column(Text)
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB)
    username: Mapped[str] = mapped_column(Text)
    sealed_secret: Mapped[str] = mapped_column(Text)
    ca_pem: Mapped[str | None] = mapped_column(Text)
    thumbprint: Mapped[str | None] = mapped_column(Text)
    revision: Mapped[int] = mapped_column(BigInteger)
    gone: Mapped[bool]
