"""What registry and monitor say about resources."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from pydantic import AwareDatetime

from libs.common.contracts.base import Event, StateEvent


class Mode(StrEnum):
    """How far Tides may go on a resource."""

    OBSERVE = "observe"
    """Decisions are stored and shown; nothing in the cloud is touched. The start."""
    LEND = "lend"
    PAUSED = "paused"
    """Budgets to the floor and no new work; machines stay."""
    DRAINING = "draining"
    """Machines are drained and destroyed; then the resource is released."""


class ResourceChanged(StateEvent):
    """A registered endpoint as a whole, its credential sealed. Internal: never on the public exchange."""

    key: ClassVar[str] = "resource.changed.v1"

    resource_id: UUID
    organisation_id: UUID
    name: str
    provider: str
    """Entry-point name of the driver: `simulated`, `vsphere` ..."""
    url: str
    settings: dict[str, Any]
    """The driver's own settings (scope, network, folder names ...), validated by registry; holds no secret."""
    username: str
    sealed_secret: str
    """The password or token, sealed with endpoint and pin as associated data; opened only by a driver."""
    uses_alternate: bool = False
    """Whether user name and secret are those of the alternate credential, since the first is refused."""
    ca_pem: str | None
    thumbprint: str | None
    mode: Mode
    force: bool = False
    """With `draining`: destroy machines without waiting for their work."""
    abandoned: str = ""
    """With `gone`: why its machines are written off without asking the cloud; empty: there are none."""
    interval_s: float
    site: str = ""
    """Where it stands; empty: nobody said."""
    stand_in_id: UUID | None = None
    """The resource that takes over what is lent to this one alone, while this one does not answer; None: none does."""
    probe_id: UUID | None = None
    """While it observes: one machine may be made for this probe, before anything is lent; None: there is no probe."""
    probe_until: AwareDatetime | None = None
    """Nothing is made for the probe from then on."""
    probe_outcome: str = ""
    """How the last probe went, in words; empty: there was none, or it goes on."""

    @property
    def subject(self) -> str:
        return str(self.resource_id)


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One host as the inventory knows it."""

    host: str
    name: str
    cpu_capacity_mhz: float
    memory_capacity_mib: float
    cores: int
    threads: int | None = None
    numa_nodes: int | None = None
    gpus: int | None = None
    """None: not known, which is not none."""
    gpu_models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """One cluster as the inventory knows it."""

    cluster_id: UUID
    cluster: str
    name: str
    hosts: tuple[HostFacts, ...]


class InventoryChanged(StateEvent):
    """The clusters and hosts of a resource, when any of them came, went or changed size."""

    key: ClassVar[str] = "resource.inventory_changed.v1"

    resource_id: UUID
    clusters: tuple[ClusterFacts, ...]

    @property
    def subject(self) -> str:
        return str(self.resource_id)


class ResourceDegraded(Event):
    """A resource does not answer as it should; said once per outage."""

    key: ClassVar[str] = "resource.degraded.v1"

    resource_id: UUID
    cause: str
    """One of libs.providers.base.Cause."""
    detail: str

    @property
    def subject(self) -> str:
        return str(self.resource_id)


class LoginFact(Event):
    """A cloud refused the credential that a revision of a resource names; said by who tried it."""

    resource_id: UUID
    resource_revision: int
    """The revision whose credential was tried."""
    detail: str
    """What the cloud said."""

    @property
    def subject(self) -> str:
        return str(self.resource_id)


class LoginRefused(LoginFact):
    """By monitor, at its next round."""

    key: ClassVar[str] = "resource.login_refused.v1"


class ResourceRecovered(Event):
    """A degraded resource answers again."""

    key: ClassVar[str] = "resource.recovered.v1"

    resource_id: UUID
    outage_s: float

    @property
    def subject(self) -> str:
        return str(self.resource_id)
