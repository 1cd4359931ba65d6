"""Tables of contribution."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
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
    url_signature: Mapped[str | None] = mapped_column(Text)
    """The block over `url` that clients ask of their account manager; made offline."""
    created_at: Mapped[datetime] = mapped_column(Utc)


class ListedProject(Base):
    """A project of the catalogue that was last given; nobody lends to it by that."""

    __tablename__ = "listed_project"

    url: Mapped[str] = mapped_column(String(300), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    area: Mapped[str] = mapped_column(String(200))
    specific_area: Mapped[str] = mapped_column(String(200))
    home: Mapped[str] = mapped_column(String(300))
    description: Mapped[str] = mapped_column(Text)
    web_url: Mapped[str] = mapped_column(String(300))
    runs_here: Mapped[bool]
    keywords: Mapped[list[int]] = mapped_column(ARRAY(Integer))


class Visit(Base):
    """What a project said of itself when it was last asked, from its first answer on; and who asks it next, when."""

    __tablename__ = "visit"

    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id", ondelete="CASCADE"), primary_key=True)
    due_at: Mapped[datetime] = mapped_column(Utc)
    lease_token: Mapped[UUID | None]
    lease_until: Mapped[datetime | None] = mapped_column(Utc)
    """By the database's clock."""
    seen_at: Mapped[datetime] = mapped_column(Utc)
    """When it last answered as a project does."""
    master_url: Mapped[str] = mapped_column(String(300))
    down: Mapped[bool]
    """It said that it is stopped."""
    terms: Mapped[str] = mapped_column(Text)
    terms_sha256: Mapped[str] = mapped_column(String(64))
    terms_since: Mapped[datetime] = mapped_column(Utc)
    """When these terms were first seen."""
    failures: Mapped[int]
    """In a row."""
    failing_since: Mapped[datetime | None] = mapped_column(Utc)
    trouble: Mapped[str | None] = mapped_column(String(300))
    """Why it could not be asked; None: it answers."""
    stats_due_at: Mapped[datetime | None] = mapped_column(Utc)
    """When its statistics files are read again; None: they never were."""
    stats_trouble: Mapped[str | None] = mapped_column(String(300))
    etags: Mapped[dict[str, str]] = mapped_column(JSONB, server_default=text("'{}'"))
    """By kind of file, that which was read last."""


class Consent(Base):
    """Somebody agreed for an organisation to the terms of a project: these terms, and no others."""

    __tablename__ = "consent"
    __table_args__ = (UniqueConstraint("organisation_id", "project_id", "terms_sha256"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organisation_id: Mapped[UUID]
    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id", ondelete="CASCADE"))
    terms_sha256: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[UUID]
    user_name: Mapped[str] = mapped_column(String(200))
    at: Mapped[datetime] = mapped_column(Utc)


class KeptTerms(Base):
    """The text of terms that somebody agreed to: the project may have others by now."""

    __tablename__ = "kept_terms"

    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id", ondelete="CASCADE"), primary_key=True)
    terms_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    terms: Mapped[str] = mapped_column(Text)


class Account(Base):
    """An organisation's account at a project. The strong key is here, sealed, and in nothing that leaves."""

    __tablename__ = "account"
    __table_args__ = (UniqueConstraint("organisation_id", "project_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organisation_id: Mapped[UUID]
    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id"), index=True)
    state: Mapped[int] = mapped_column(SmallInteger)
    email: Mapped[str] = mapped_column(String(254))
    creates: Mapped[bool]
    """The account may be made; else it is there."""
    user_name: Mapped[str] = mapped_column(String(60))
    """Of an account that is made, shown by the project to everybody."""
    sealed_login: Mapped[str] = mapped_column(Text)
    """What is logged in with, once; empty from then on."""
    asked_at: Mapped[datetime] = mapped_column(Utc)
    tried_at: Mapped[datetime | None] = mapped_column(Utc)
    """When the login was about to be sent."""
    sealed_strong_key: Mapped[str] = mapped_column(Text)
    sealed_weak_key: Mapped[str] = mapped_column(Text)
    user_id: Mapped[int] = mapped_column(BigInteger)
    trouble: Mapped[str | None] = mapped_column(String(300))
    credit_at: Mapped[datetime | None] = mapped_column(Utc)
    """When its hosts' credit was last read."""
    created_at: Mapped[datetime] = mapped_column(Utc)
    updated_at: Mapped[datetime] = mapped_column(Utc)


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
    account_id: Mapped[UUID | None] = mapped_column(ForeignKey("account.id", ondelete="SET NULL"), index=True)
    """The stored account whose weak key that is; None: it was given."""
    priority: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Machines work for the highest that has room."""
    most_machines: Mapped[int | None]
    """At most so many machines work for it; None: no bound. The same of their vCPUs."""
    most_vcpus: Mapped[int | None]
    refused_at: Mapped[datetime | None] = mapped_column(Utc)
    """Since when the project refuses its key to a machine; None: it does not, as far as is known."""
    refused_why: Mapped[str | None] = mapped_column(String(300))
    """In the project's own words."""
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
    """Since when it is at this stage."""
    grace_s: Mapped[float | None]
    """How long a draining machine has; None: it was not said."""
    probe_id: Mapped[UUID | None]
    """The probe of its resource that it is; None: it is none."""
    probe_step: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    """How far the probe was last told to be, in order of `Step`; 0: nothing was told."""
    probe_why: Mapped[str | None] = mapped_column(String(300))
    """What was last told to stand in its way."""


class AwayResource(Base):
    """A resource that was away, as workload said last."""

    __tablename__ = "away_resource"

    resource_id: Mapped[UUID] = mapped_column(primary_key=True)
    organisation_id: Mapped[UUID] = mapped_column(index=True)
    is_away: Mapped[bool]
    stand_in_id: Mapped[UUID | None]
    """What stands in for it; None: nothing does."""
    at: Mapped[datetime] = mapped_column(Utc)


class GuestToken(Base):
    """One token of a machine, by its hash: the one in force, the next one until it is seen, or a spent one."""

    __tablename__ = "guest_token"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    machine_id: Mapped[UUID] = mapped_column(ForeignKey("machine.id", ondelete="CASCADE"), index=True)
    standing: Mapped[int] = mapped_column(SmallInteger)
    rotates_at: Mapped[datetime] = mapped_column(Utc)
    nonce: Mapped[str | None] = mapped_column(String(64))
    """With the token itself it makes the next one, which is therefore written down nowhere."""


class Contact(Base):
    """What the BOINC client of a machine last said of itself to its account manager."""

    __tablename__ = "contact"

    machine_id: Mapped[UUID] = mapped_column(ForeignKey("machine.id", ondelete="CASCADE"), primary_key=True)
    first_at: Mapped[datetime] = mapped_column(Utc)
    at: Mapped[datetime] = mapped_column(Utc)
    client_version: Mapped[str] = mapped_column(String(32))
    host_cpid: Mapped[str] = mapped_column(String(64))
    fpops: Mapped[float]


class Counter(Base):
    """How far a machine's counters of a project were counted; they begin when it is attached."""

    __tablename__ = "counter"

    machine_id: Mapped[UUID] = mapped_column(ForeignKey("machine.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id", ondelete="CASCADE"), primary_key=True)
    at: Mapped[datetime] = mapped_column(Utc)
    host_id: Mapped[int] = mapped_column(BigInteger)
    """The project's own id of the host: what its credit is told by."""
    cpu_s: Mapped[float]
    """As far as it was counted; never more than the machine can have spent."""
    jobs_succeeded: Mapped[int] = mapped_column(BigInteger)
    jobs_failed: Mapped[int] = mapped_column(BigInteger)
    starved: Mapped[bool]
    resource_share: Mapped[float]


class ToldHost(Base):
    """The host that a project was told of, as which the machine works for it."""

    __tablename__ = "told_host"

    machine_id: Mapped[UUID] = mapped_column(ForeignKey("machine.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id", ondelete="CASCADE"), primary_key=True)
    host_id: Mapped[int] = mapped_column(BigInteger)


class Forecast(Base):
    """When a project is next told what it may expect, and of how many hosts it was told."""

    __tablename__ = "forecast"

    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id", ondelete="CASCADE"), primary_key=True)
    due_at: Mapped[datetime] = mapped_column(Utc)
    hosts: Mapped[int]


class Claimed(Base):
    """CPU seconds and credit that a machine claims of a day (UTC) for a project; what was granted is another figure."""

    __tablename__ = "claimed"

    day: Mapped[date] = mapped_column(primary_key=True)
    machine_id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID] = mapped_column(primary_key=True)
    organisation_id: Mapped[UUID] = mapped_column(index=True)
    cpu_s: Mapped[float]
    credit: Mapped[float]


class GrantedHost(Base):
    """A host of an organisation at a project, and how far its credit was counted; those without credit have no row."""

    __tablename__ = "granted_host"

    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id", ondelete="CASCADE"), primary_key=True)
    organisation_id: Mapped[UUID] = mapped_column(primary_key=True)
    host_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    """The project's own id."""
    user_id: Mapped[int] = mapped_column(BigInteger)
    machine_id: Mapped[UUID | None]
    """The machine that was last known to be it; None: no machine of ours."""
    total: Mapped[float]
    seen_at: Mapped[datetime] = mapped_column(Utc)


class Granted(Base):
    """Credit that a project granted, by the day (UTC) on which that was seen: it comes days after the work."""

    __tablename__ = "granted"

    day: Mapped[date] = mapped_column(primary_key=True)
    project_id: Mapped[UUID] = mapped_column(primary_key=True)
    organisation_id: Mapped[UUID] = mapped_column(primary_key=True)
    machine_id: Mapped[UUID] = mapped_column(primary_key=True)
    """NOBODY: hosts of the account that are no machines of ours."""
    credit: Mapped[float]


class Guest(Base):
    """The agent in a machine: how it enrolled, and what it last told."""

    __tablename__ = "guest"

    machine_id: Mapped[UUID] = mapped_column(ForeignKey("machine.id", ondelete="CASCADE"), primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    """Of the one-time token in the machine's user-data."""
    secret_sha256: Mapped[str | None] = mapped_column(String(64), unique=True)
    """Of the secret that the machine drew itself; None until it has enrolled."""
    enrolled_at: Mapped[datetime | None] = mapped_column(Utc)
    beat_at: Mapped[datetime | None] = mapped_column(Utc)
    version: Mapped[str] = mapped_column(String(16))
    boinc_error: Mapped[str | None] = mapped_column(String(200))
    """Why BOINC could not be asked; None: it could."""
    alerts: Mapped[dict[str, str]] = mapped_column(JSONB, server_default=text("'{}'"))
    """What projects complained of to its client, by their addresses."""
    tasks: Mapped[int]
    running: Mapped[int]
    held: Mapped[bool]
    """BOINC was suspended because nobody had been heard of."""
    resume_at: Mapped[datetime | None] = mapped_column(Utc)
    """When a drain was called off that the agent does not know of yet."""
    drained_at: Mapped[datetime | None] = mapped_column(Utc)
    lost_cpu_s: Mapped[float | None]
    observed: Mapped[str | None] = mapped_column(String(16))
    """Its health at the last look, and since when it is so."""
    observed_at: Mapped[datetime | None] = mapped_column(Utc)
    said: Mapped[str | None] = mapped_column(String(16))
    """The health that others were last told, and why it is so."""
    said_at: Mapped[datetime | None] = mapped_column(Utc)
    said_why: Mapped[str | None] = mapped_column(String(300))


class GuestOrder(Base):
    """What a guest is told besides its drain: how much of its processors it may use, and to end."""

    __tablename__ = "guest_order"

    machine_id: Mapped[UUID] = mapped_column(ForeignKey("machine.id", ondelete="CASCADE"), primary_key=True)
    throttle_percent: Mapped[float | None]
    """By a person, until its time is over; None: nobody asked."""
    throttle_until: Mapped[datetime | None] = mapped_column(Utc)
    throttle_by: Mapped[str | None] = mapped_column(String(200))
    throttle_reason: Mapped[str | None] = mapped_column(String(200))
    cap_percent: Mapped[float | None]
    """By workload, where the cloud has no limits; None: it has."""
    cap_at: Mapped[datetime | None] = mapped_column(Utc)
    applied_percent: Mapped[float | None]
    """What the agent last acknowledged; None: nothing, it runs free."""
    applied_at: Mapped[datetime | None] = mapped_column(Utc)
    error: Mapped[str | None] = mapped_column(String(200))
    """Why the last order could not be carried out."""
    error_at: Mapped[datetime | None] = mapped_column(Utc)
    tries: Mapped[int] = mapped_column(default=0)
    stop_until: Mapped[datetime | None] = mapped_column(Utc)
    """Until then the order to end may be fetched."""
    stop_by: Mapped[str | None] = mapped_column(String(200))
    stop_reason: Mapped[str | None] = mapped_column(String(200))
    stopped_at: Mapped[datetime | None] = mapped_column(Utc)
    """When the agent acknowledged it."""


class EarlyCap(Base):
    """What workload allows the guest of a machine that has not been heard of yet: events come in any order."""

    __tablename__ = "early_cap"

    machine_id: Mapped[UUID] = mapped_column(primary_key=True)
    percent: Mapped[float]
    at: Mapped[datetime] = mapped_column(Utc)
