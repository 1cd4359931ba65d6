"""What a simulated cloud is made of: chosen when it is created, kept in its state from then on."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from libs.providers.base import Capability

MOST_CLUSTERS = 50
MOST_HOSTS = 200
"""Of one cluster. Physics run inside the services' own processes: what a cloud costs must have an end."""
TemplateName = Annotated[str, Field(min_length=1, max_length=200)]
Removable = Literal[
    Capability.LIMITS, Capability.SUSPEND, Capability.GUEST_SHUTDOWN, Capability.BACKFILL, Capability.TEMPLATES
]  # fmt: skip


class OwnerProfile(StrEnum):
    """How the owner of a cluster uses it."""

    OFFICE = "office"
    """Working hours, quiet nights and weekends."""
    NOISY = "noisy"
    """As office, with restless machines and frequent spikes."""
    FULL = "full"
    """75 to 88 % at all times: there is next to nothing to lend."""
    IDLE = "idle"
    """Hardly used."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClusterDefinition(_Frozen):
    """One cluster of equal hosts."""

    name: str = Field(min_length=1, max_length=80)
    hosts: int = Field(ge=1, le=MOST_HOSTS)
    owner: OwnerProfile = OwnerProfile.OFFICE
    cores: int = Field(default=16, ge=1, le=512)
    core_mhz: float = Field(default=2600.0, gt=0, le=10_000)
    memory_gib: float = Field(default=256.0, gt=0)
    datastore_gib: float = Field(default=20_480.0, gt=0)
    gpus: int = Field(default=0, ge=0, le=64)
    """Of each host."""
    numa_nodes: int = Field(default=1, ge=1, le=16)


class Faults(_Frozen):
    """What is wrong with the cloud just now; nothing, unless somebody turns a knob."""

    latency_s: float = Field(default=0.0, ge=0)
    """Every call takes this long, on the caller's clock; beyond 30 s it ends as Unavailable(TIMEOUT)."""
    unavailable: bool = False
    """Nothing answers: Unavailable(UNREACHABLE)."""
    auth_failure: bool = False
    """Logins and calls of sessions that are open are refused: Rejected(AUTH)."""
    create_full: bool = False
    """`create` finds no room: Full(CAPACITY)."""
    half_clone: bool = False
    """New clones end unconfigured, as after a crash in between: `create` again mends it."""
    delete_forbidden: bool = False
    """The account may neither switch off nor delete: `delete` is Rejected(PERMISSION)."""
    lose_answers: bool = False
    """What changes the cloud is carried out, and the answer is lost: Unavailable(TIMEOUT)."""
    inventory_unreadable: bool = False
    """`machines` is Unavailable(UNREACHABLE); everything else works."""
    impossible_samples: bool = False
    """Samples claim more use by ours than in total."""
    clock_offset_s: float = 0.0
    """The cloud's clock minus the caller's."""


class SimulatedSettings(_Frozen):
    """Settings of a simulated resource. They shape a cloud that does not exist yet; one that does keeps its
    own."""

    scenario: Literal["enterprise", "small"] = "enterprise"
    seed: int = Field(default=7, ge=0, lt=2**63)
    interval_s: int = Field(default=20, ge=1, le=3600)
    """Length of a sampling interval: 20 as in vSphere; 60 keeps accelerated runs cheap."""
    clusters: tuple[ClusterDefinition, ...] | None = Field(default=None, max_length=MOST_CLUSTERS)
    """Instead of the scenario's clusters."""
    templates: tuple[TemplateName, ...] = Field(default=("boinc-worker",), max_length=50)
    clone_s: float = Field(default=45.0, ge=0)
    """Mean time of a clone; the n-th machine always takes the same."""
    boot_s: float = Field(default=75.0, ge=0)
    """Mean time of a boot, plus or minus 20 %."""
    without: tuple[Removable, ...] = ()
    """Capabilities that this cloud lacks."""
    faults: Faults = Faults()


_SCENARIOS: dict[str, tuple[ClusterDefinition, ...]] = {
    "enterprise": (
        ClusterDefinition(name="prod-a", hosts=6, owner=OwnerProfile.OFFICE),
        ClusterDefinition(name="prod-b", hosts=4, owner=OwnerProfile.NOISY),
        ClusterDefinition(name="prod-c", hosts=4, owner=OwnerProfile.FULL),
    ),
    "small": (ClusterDefinition(name="lab", hosts=2, owner=OwnerProfile.OFFICE),),
}


def clusters_of(settings: SimulatedSettings) -> tuple[ClusterDefinition, ...]:
    """The clusters that these settings mean."""
    return settings.clusters if settings.clusters is not None else _SCENARIOS[settings.scenario]
