"""What goes over the wire of `/v1/resources`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from libs.common.contracts.resource import Mode
from libs.providers.values import Cause
from services.registry.api.alternates import AlternateGiven
from services.registry.domain import Health
from services.registry.domain.hosts import HostClass, Metal, classify
from services.registry.models import Resource
from services.registry.usecases.outcomes import Outcome

Interval = Field(default=20.0, ge=1, le=300, description="Seconds between two samples.")


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Declared(_Given):
    """What stands there, where the cloud shows no hosts; hosts that are seen count instead."""

    hosts: int = Field(ge=0, le=100_000)
    cores: int = Field(ge=0, le=100_000_000)
    memory_gib: float = Field(ge=0, le=1e9, allow_inf_nan=False)
    gpus: int | None = Field(default=None, ge=0, le=10_000_000, description="Null: not known.")


class ResourceGiven(_Given):
    """A cloud to register. The password is sealed on entry and never shown again."""

    name: str
    provider: str = Field(description="Name of an installed driver.", max_length=40)
    url: str
    username: str
    password: SecretStr
    ca_pem: str | None = None
    thumbprint: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict, description="The driver's own settings.")
    interval_s: float = Interval
    requires_probe: bool = Field(
        default=False, description="One machine must reach a project before the resource is lent."
    )
    site: str | None = Field(default=None, description="Where it stands: the name of a place.")
    declared: Declared | None = None


class ResourceChange(_Given):
    """What is to change; what is left out stays. Another address or pin needs the password again."""

    name: str | None = None
    url: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    ca_pem: str | None = None
    thumbprint: str | None = None
    settings: dict[str, Any] | None = None
    interval_s: float | None = Field(default=None, ge=1, le=300)
    requires_probe: bool | None = None
    """False takes it back; for admins."""
    site: str | None = None
    """Null takes it away."""
    declared: Declared | None = None
    """Null takes it away."""
    alternate: AlternateGiven | None = None
    """Null takes it away."""
    stand_in_id: UUID | None = None
    """Null takes it away."""


class CheckGiven(_Given):
    """What a trial is made with."""

    template: str | None = Field(
        default=None,
        min_length=1,
        max_length=400,
        description="The cloud's own name or id of a template; without one only what looks is tried.",
    )
    cluster: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Name or reference; else the first that is up.",
    )


class ModeGiven(_Given):
    """How far Tides may go from now on."""

    mode: Mode
    force: bool = Field(
        default=False, description="With `draining`: destroy machines without waiting for their work."
    )
    probe: bool | None = Field(
        default=None,
        description="With `lend`: whether one machine must reach a project first; it is lent when that has happened."
        " Left out: as the resource requires; `false` where it does: for admins.",
    )
    probe_for_s: float = Field(
        default=3600.0, ge=60, le=86_400, description="After so long a probe has failed.", allow_inf_nan=False
    )


class ClusterFound(BaseModel):
    cluster: str
    name: str
    hosts: int
    cores: int
    cpu_mhz: float
    memory_mib: float


class PrivilegeMissing(BaseModel):
    privilege: str
    disables: str


class BlockerShown(BaseModel):
    """Why nothing can be lent, and what to do; `lend` is refused until a validation no longer finds it."""

    code: str
    detail: str
    remedy: str


class ValidationError(BaseModel):
    cause: str
    detail: str


class ValidationShown(BaseModel):
    """What the last validation found; `error` is set when it failed, and then there are no facts."""

    at: datetime
    ok: bool
    product: str | None = None
    api_version: str | None = None
    instance_id: str | None = None
    clusters: list[ClusterFound] = []
    missing: list[PrivilegeMissing] = []
    warnings: list[str] = []
    blockers: list[BlockerShown] = []
    error: ValidationError | None = None


class AlternateShown(BaseModel):
    """Another account of the same cloud, that is used while the cloud refuses the first one."""

    username: str
    in_use: bool
    since: datetime | None
    """In use since then."""
    why: str | None
    """What the cloud said to the first one."""
    first_try_at: datetime | None
    """When the first one is tried again; a validation or another password tries it at once."""


class HealthShown(BaseModel):
    """How it answers; `degraded` also while its first credential is refused and the alternate is in use."""

    state: Health
    cause: str | None
    detail: str | None
    since: datetime | None


class AlarmShown(BaseModel):
    """The sweeper waits for a person."""

    at: datetime
    reason: str
    orphans: int
    machines: int


class HostShown(BaseModel):
    """What is null is not known: the cloud does not say, or not to this account."""

    reference: str
    name: str
    cores: int
    threads: int | None
    numa_nodes: int | None
    cpu_mhz: float
    memory_mib: float
    gpus: int | None
    gpu_models: list[str]
    host_class: HostClass | None


class ClusterShown(BaseModel):
    id: UUID
    reference: str
    name: str
    cores: int
    cpu_mhz: float
    memory_mib: float
    hosts: list[HostShown]


class ProbeShown(BaseModel):
    """One machine that must reach a project before the resource is lent: how it does, or how the last one went."""

    outcome: Outcome
    asked_at: datetime | None
    asked_by: str | None
    until: datetime | None
    step: str
    """waiting, requested, running, enrolled (its agent), contacted (its account manager) or attached."""
    reason: str
    """What it waits for."""
    at: datetime
    """Of that."""
    machine_id: UUID | None
    ended_at: datetime | None
    why: str
    """Of the outcome."""


class ResourceShown(BaseModel):
    """A resource; its password is not in it."""

    id: UUID
    revision: int
    organisation_id: UUID
    name: str
    provider: str
    url: str
    username: str
    ca_pem: str | None
    thumbprint: str | None
    settings: dict[str, Any]
    interval_s: float
    site: str | None
    declared: Declared | None
    mode: Mode
    force: bool
    deleting: bool
    released_at: datetime | None
    alternate: AlternateShown | None
    stand_in_id: UUID | None
    """The resource that takes over what is lent to this one alone, while its cloud is away."""
    health: HealthShown
    alarm: AlarmShown | None
    capabilities: list[str]
    validation: ValidationShown | None
    clusters: list[ClusterShown]
    requires_probe: bool
    activated_at: datetime | None
    """When it was first lent."""
    probe: ProbeShown | None
    created_at: datetime
    updated_at: datetime


def show(resource: Resource) -> ResourceShown:
    """A row as people see it."""
    return ResourceShown(
        id=resource.id,
        revision=resource.revision,
        organisation_id=resource.organisation_id,
        name=resource.name,
        provider=resource.provider,
        url=resource.url,
        username=resource.username,
        ca_pem=resource.ca_pem,
        thumbprint=resource.thumbprint,
        settings=resource.settings,
        interval_s=resource.interval_s,
        site=resource.site,
        declared=Declared.model_validate(resource.declared) if resource.declared else None,
        mode=resource.mode,
        force=resource.force,
        deleting=resource.deleting,
        released_at=resource.released_at,
        alternate=_show_alternate(resource),
        stand_in_id=resource.stand_in_id,
        health=_show_health(resource),
        alarm=AlarmShown.model_validate(resource.alarm) if resource.alarm else None,
        capabilities=resource.capabilities,
        validation=ValidationShown.model_validate(resource.validation) if resource.validation else None,
        clusters=[_show_cluster(facts) for facts in resource.inventory],
        requires_probe=resource.requires_probe,
        activated_at=resource.activated_at,
        probe=ProbeShown.model_validate(resource.probe) if resource.probe else None,
        created_at=resource.created_at,
        updated_at=resource.updated_at,
    )


def _show_health(resource: Resource) -> HealthShown:
    if resource.alternate_since is not None and resource.health is not Health.DEGRADED:
        why = f"{resource.username} is refused, {resource.alternate_username} is in use: {resource.alternate_why}"
        return HealthShown(
            state=Health.DEGRADED, cause=Cause.AUTH.value, detail=why, since=resource.alternate_since
        )
    return HealthShown(
        state=resource.health,
        cause=resource.health_cause,
        detail=resource.health_detail,
        since=resource.health_at,
    )


def _show_alternate(resource: Resource) -> AlternateShown | None:
    if resource.alternate_username is None:
        return None
    return AlternateShown(
        username=resource.alternate_username,
        in_use=resource.alternate_since is not None,
        since=resource.alternate_since,
        why=resource.alternate_why,
        first_try_at=resource.first_try_at,
    )


def _show_cluster(facts: dict[str, Any]) -> ClusterShown:
    hosts = [
        HostShown(
            reference=host["host"],
            name=host["name"],
            cores=host["cores"],
            threads=host.get("threads"),
            numa_nodes=host.get("numa_nodes"),
            cpu_mhz=host["cpu_capacity_mhz"],
            memory_mib=host["memory_capacity_mib"],
            gpus=host.get("gpus"),
            gpu_models=host.get("gpu_models") or [],
            host_class=classify(Metal(host["cores"], host["memory_capacity_mib"], host.get("gpus"))),
        )
        for host in facts["hosts"]
    ]
    return ClusterShown(
        id=facts["cluster_id"],
        reference=facts["cluster"],
        name=facts["name"],
        cores=sum(host.cores for host in hosts),
        cpu_mhz=sum(host.cpu_mhz for host in hosts),
        memory_mib=sum(host.memory_mib for host in hosts),
        hosts=hosts,
    )
