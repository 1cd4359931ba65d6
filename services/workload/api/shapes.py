"""The shapes of workload's answers."""

from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from libs.providers.health import Health, health
from services.workload.models import Resource
from services.workload.usecases.reading import ClusterRow


class HostOut(BaseModel):
    """One host: MHz by owner, by us, and what may be lent."""

    host: str
    name: str
    state: str
    capacity_mhz: float
    owner_mhz: float | None
    """None where the measurement was impossible (e.g. ours above total)."""
    ours_mhz: float
    budget_mhz: float
    limit_mhz: float
    machines: int
    memory_capacity_mib: float
    memory_used_mib: float
    memory_active_mib: float | None
    """What of it was touched of late; this and what follows is measured slowly and where ours run, else null."""
    owner_balloon_mib: float | None
    owner_swapped_mib: float | None


class ClusterOut(BaseModel):
    """A cluster as an operator sees it."""

    id: UUID
    resource_id: UUID
    resource: str
    mode: str
    name: str
    verdict: str
    rung: str | None
    reason: str
    sampled_at: datetime | None
    decided_at: datetime | None
    capacity_mhz: float
    owner_mhz: float
    ours_mhz: float
    budget_mhz: float
    cap_mhz: float
    wanted: int
    running: int
    machines: dict[str, int]
    guests: dict[str, int]
    """Running machines by what their guests say (working, starved, broken, silent, absent ...), where they say."""
    hosts: list[HostOut]
    paused_by: str | None
    paused_reason: str | None
    draining: bool
    most_machines: int | None
    sweep_stopped: str | None
    cloud: Health
    """How well the cloud takes what we do to it."""
    drs: str | None
    """off, manual, partial, full, or on where it is not told how far; null where there is none."""
    ha_reserve_cpu_mhz: float | None
    ha_reserve_memory_mib: float | None
    """What HA's admission control keeps free; null where it is not known."""
    superseded: int


class WorkloadOut(BaseModel):
    """What runs on a cluster for one organisation."""

    model_config = ConfigDict(from_attributes=True)
    id: UUID
    cluster_id: UUID
    organisation_id: UUID
    template: str
    wanted: int
    created_at: datetime


class MachineOut(BaseModel):
    """One machine."""

    model_config = ConfigDict(from_attributes=True)
    id: UUID
    name: str
    workload_id: UUID
    organisation_id: UUID
    resource_id: UUID
    cluster_id: UUID
    ordinal: int
    slot: int | None
    """The number in its host name: its own while it lives, its successor's afterwards."""
    host: str | None
    wanted: str
    state: str
    state_since: datetime
    power: str | None
    progress: int | None
    """How far the cloud is with what it does to it just now, in percent, where it says so."""
    limit_mhz: float | None
    vcpus: int
    memory_mib: int
    health: str | None
    """How its guest does; null where it has not been heard of (machines that are attached by files never are)."""
    health_at: datetime | None
    health_why: str | None
    attached: dict[str, Any] | None
    """What it was attached to when it was made, keys by an id that lets nobody attach."""
    reason: str
    error: str | None
    overdue: bool
    created_at: datetime
    running_since: datetime | None


class DecisionOut(BaseModel):
    """A stored decision with all that it was made from: deciding again gives the same."""

    model_config = ConfigDict(from_attributes=True)
    id: UUID
    cluster_id: UUID
    at: datetime
    policy_id: UUID
    policy_revision: int
    reason: str
    state_before: dict[str, Any]
    observation: dict[str, Any]
    facts: dict[str, Any]
    decision: dict[str, Any]


class EventOut(BaseModel):
    """An action event."""

    model_config = ConfigDict(from_attributes=True)
    id: UUID
    key: str
    at: datetime
    resource_id: UUID | None
    cluster_id: UUID | None
    machine_id: UUID | None
    body: dict[str, Any]


def cluster_out(row: ClusterRow, now: datetime) -> ClusterOut:
    """A cluster's row as an operator sees it."""
    cluster, decision, sample = row.cluster, row.cluster.decision or {}, row.cluster.sample or {}
    hosts = _hosts(sample, {b["host"]: b for b in decision.get("budgets", [])}, cluster.budgets_mhz)
    return ClusterOut(
        id=cluster.id,
        resource_id=cluster.resource_id,
        resource=row.resource.name,
        mode=row.resource.mode,
        name=cluster.name,
        verdict=decision.get("verdict", "unknown"),
        rung=_RUNGS[decision["rung"]] if "rung" in decision else None,
        reason=cluster.reason,
        sampled_at=cluster.sampled_at,
        decided_at=cluster.decided_at,
        capacity_mhz=sum(host.capacity_mhz for host in hosts),
        owner_mhz=sum(host.owner_mhz or 0.0 for host in hosts),
        ours_mhz=sum(host.ours_mhz for host in hosts),
        budget_mhz=sum(host.budget_mhz for host in hosts),
        cap_mhz=cluster.cap_mhz,
        wanted=decision.get("wanted", 0),
        running=decision.get("running", 0),
        machines=row.machines,
        guests=row.guests,
        hosts=hosts,
        paused_by=cluster.paused_by,
        paused_reason=cluster.paused_reason,
        draining=cluster.draining,
        most_machines=cluster.most_machines,
        sweep_stopped=row.resource.sweep_stopped,
        cloud=_health(row.resource, now),
        drs=sample.get("drs"),
        ha_reserve_cpu_mhz=_finite(sample.get("ha_reserve_cpu_mhz")),
        ha_reserve_memory_mib=_finite(sample.get("ha_reserve_memory_mib")),
        superseded=cluster.superseded,
    )


def _health(resource: Resource, now: datetime) -> Health:
    return health(
        failures=resource.failures,
        retry_at=resource.retry_at,
        since=resource.failing_since,
        cause=resource.refused_cause,
        detail=resource.refused_detail,
        now=now,
    )


_RUNGS = ("lend", "floor", "no_new", "suspend", "drain", "destroy")


def _hosts(
    sample: Mapping[str, Any], decided: Mapping[str, Any], budgets: Mapping[str, float]
) -> list[HostOut]:
    hosts = []
    for index, host in enumerate(sample.get("hosts", [])):
        used, ours = _number(sample, "cpu_used_mhz", index), _number(sample, "cpu_ours_mhz", index)
        capacity = _number(sample, "cpu_capacity_mhz", index)
        owner = min(used - ours, capacity) if 0.0 <= ours <= used else None
        hosts.append(
            HostOut(
                host=host,
                name=sample["host_names"][index],
                state=sample["states"][index],
                capacity_mhz=capacity,
                owner_mhz=owner,
                ours_mhz=ours,
                budget_mhz=decided.get(host, {}).get("budget_mhz", budgets.get(host, 0.0)),
                limit_mhz=_number(sample, "cpu_limit_mhz", index),
                machines=sample["machines"][index],
                memory_capacity_mib=_number(sample, "memory_capacity_mib", index),
                memory_used_mib=_number(sample, "memory_used_mib", index),
                memory_active_mib=_maybe(sample, "memory_active_mib", index),
                owner_balloon_mib=_maybe(sample, "owner_balloon_mib", index),
                owner_swapped_mib=_maybe(sample, "owner_swapped_mib", index),
            )
        )
    return hosts


def _number(sample: Mapping[str, Any], column: str, index: int) -> float:
    """A value as stored; what is no number (NaN is stored as text) shows as 0."""
    value = float(sample[column][index])
    return value if isfinite(value) else 0.0


def _maybe(sample: Mapping[str, Any], column: str, index: int) -> float | None:
    """A value of a column that may not be there."""
    values = sample.get(column) or ()
    return _finite(values[index]) if index < len(values) else None


def _finite(value: Any) -> float | None:
    return None if value is None or not isfinite(float(value)) else float(value)
