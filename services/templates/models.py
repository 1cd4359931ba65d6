"""Tables of templates."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, String, Text, UniqueConstraint, text
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
