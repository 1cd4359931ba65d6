"""Tables of contribution."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, ForeignKey, Index, SmallInteger, String, Text, Uuid, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from libs.common.db import Utc, new_metadata


class Base(DeclarativeBase):
    """Tables of this service's schema."""

    metadata = new_metadata()


class Project(Base):
    """A demander."""

    __tablename__ = "project"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    url: Mapped[str] = mapped_column(String(300), unique=True)
    created_at: Mapped[datetime] = mapped_column(Utc)


class Contribution(Base):
    """An organisation lends to a project. The row stays when it is gone: its revision only rises."""

    __tablename__ = "contribution"
    __table_args__ = (
        Index(
            "uq_contribution_living",
            "organisation_id",
            "project_id",
            unique=True,
            postgresql_where=text("not gone"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organisation_id: Mapped[UUID]
    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id"))
    weight: Mapped[float]
    active: Mapped[bool]
    gone: Mapped[bool]
    resource_ids: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid()))
    sealed_authenticator: Mapped[str] = mapped_column(Text)
    revision: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(Utc)
    updated_at: Mapped[datetime] = mapped_column(Utc)


class Machine(Base):
    """A machine of an organisation, as far along as workload has said."""

    __tablename__ = "machine"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organisation_id: Mapped[UUID] = mapped_column(index=True)
    resource_id: Mapped[UUID]
    vcpus: Mapped[int]
    stage: Mapped[int] = mapped_column(SmallInteger)
    at: Mapped[datetime] = mapped_column(Utc)
