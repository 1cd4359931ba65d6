"""What quotas of an organisation and of its projects leave a cluster, and whom its machines work for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from libs.harvest.allotment import NOBODY, Allotment, Asking, Given, allot
from libs.harvest.quota import MOST, Quota, keep_within, left_for, tightest

_KINDS = {"machines": "machine", "vcpus": "vCPU", "memory_mib": "MiB of memory", "disk_gib": "GiB of disk"}


@dataclass(frozen=True, slots=True)
class Held:
    """A machine of the organisation, wherever it is, as it takes of quotas."""

    id: UUID
    cluster_id: UUID
    resource_id: UUID
    vcpus: int
    memory_mib: int
    disk_gib: float
    stays: bool
    """False: it is on its way out, and takes of the quota until it is gone."""
    age_s: float
    progress_s: float


@dataclass(frozen=True, slots=True)
class Size:
    """What a further machine would take."""

    vcpus: int
    memory_mib: int
    disk_gib: float


@dataclass(frozen=True, slots=True)
class Place:
    """The cluster that asks, and what it would make there."""

    cluster_id: UUID
    resource_id: UUID
    size: Size
    most: int
    """More machines than this it would not make."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A project that the organisation lends to, by name."""

    name: str
    asking: Asking[UUID]


@dataclass(frozen=True, slots=True)
class Bound:
    """How many machines the cluster may have; why is empty while there is room for more."""

    machines: int
    why: str = ""


def rank(demands: Sequence[Demand], held: Sequence[Held], *, apart: bool) -> dict[UUID, int]:
    """The priority of whom each machine works for, the oldest given first; what is on its way out works for nobody."""
    there = [one for one in sorted(held, key=lambda one: one.id) if one.stays]
    shares = allot([demand.asking for demand in demands], [_given(one) for one in there], apart=apart)
    return {machine: share.priority for machine, share in shares.items()}


def bound_by_organisation(
    quotas: Sequence[tuple[str, Quota]],
    held: Sequence[Held],
    priorities: Mapping[UUID, int],
    life_s: float,
    place: Place,
) -> Bound | None:
    """What the organisation's quotas leave the cluster; `quotas` with the names of the policies that hold them.

    Where they are exceeded, the machines that stay are chosen among those of all its clusters: the young and the
    highest priority first, then who would lose most. What stays here is what this cluster may have.
    """
    quota = tightest(known for _, known in quotas)
    if quota is None:
        return None
    left = left_for(quota, held, place.size)
    if left is None:
        return None
    ranked = sorted((one for one in held if one.stays), key=lambda one: _rank_of(one, priorities, life_s))
    kept = keep_within(quota, ranked)
    mine = sum(one.cluster_id == place.cluster_id for one in kept)
    if left.machines > 0:
        return Bound(min(MOST, mine + left.machines))
    name = next(name for name, known in quotas if getattr(known, left.kind) == left.most)
    what = f"the organisation's quota of {_tell(left.most, left.kind)} (policy {name})"
    state = "is exceeded" if left.used > left.most else "is used up"
    return Bound(mine, f"{what} {state}: {left.used:.10g} are taken on all its clusters")


def _rank_of(one: Held, priorities: Mapping[UUID, int], life_s: float) -> tuple[bool, int, float, UUID]:
    return one.age_s >= life_s, -priorities.get(one.id, 0), -one.progress_s, one.id


def bound_by_projects(
    demands: Sequence[Demand], held: Sequence[Held], place: Place, *, apart: bool
) -> Bound | None:
    """What the quotas of projects leave the cluster: a machine that would work for nobody is not made, and not kept."""
    here = [demand.asking.is_bounded for demand in demands if _may_work(demand.asking, place)]
    if here and not (all(here) if apart else any(here)):
        return None
    allotment: Allotment[UUID, UUID] = Allotment([demand.asking for demand in demands], apart=apart)
    mine = 0
    for one in sorted(held, key=lambda one: one.id):
        works = one.stays and allotment.give(_given(one)).priority > NOBODY
        mine += works and one.cluster_id == place.cluster_id
    more = allotment.give_more(_next(place), place.most)
    if more == 0:
        return Bound(mine, f"nobody is left to work for: {_name_quotas(demands, place, apart=apart)}")
    return None if more == place.most else Bound(mine + more)


def _name_quotas(demands: Sequence[Demand], place: Place, *, apart: bool) -> str:
    here = [demand for demand in demands if _may_work(demand.asking, place)]
    told = [f"{demand.name} {_name_bounds(demand.asking)}" for demand in here if demand.asking.is_bounded]
    if not told:
        return "no project is lent to here"
    joined = "" if apart else ", and machines that get their projects as files work for every one"
    return f"the quotas of projects are used up ({'; '.join(told)}){joined}"


def _name_bounds(asking: Asking[UUID]) -> str:
    bounds = ((asking.most_machines, "machines"), (asking.most_vcpus, "vcpus"))
    return " and ".join(_tell(most, kind) for most, kind in bounds if most is not None)


def _tell(most: float, kind: str) -> str:
    plural = "s" if most != 1 and kind in ("machines", "vcpus") else ""
    return f"{most:.10g} {_KINDS[kind]}{plural}"


def _may_work(asking: Asking[UUID], place: Place) -> bool:
    return asking.resources is None or place.resource_id in asking.resources


def _given(one: Held) -> Given[UUID]:
    return Given(one.id, one.resource_id, one.vcpus)


def _next(place: Place) -> Given[UUID]:
    return Given(place.cluster_id, place.resource_id, place.size.vcpus)
