"""What quotas of an organisation and of its projects leave a cluster, and whom its machines work for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from libs.harvest.allotment import NOBODY, Allotment, Asking, Given
from libs.harvest.quota import MOST, Quota, keep_within, left_of, tightest, use_of

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


@dataclass(frozen=True, slots=True)
class Working:
    """For whom all machines of an organisation work; the same for each of its clusters."""

    allotment: Allotment[UUID, UUID]
    """After every machine that stays has been given; what asks for more takes a copy."""
    priorities: Mapping[UUID, int]
    """Of whom each machine works for."""
    useful: Mapping[UUID, int]
    """By cluster, machines that work for somebody."""


def share_out(demands: Sequence[Demand], held: Sequence[Held], *, apart: bool) -> Working:
    """Give every machine to projects, the oldest first; what is on its way out works for nobody."""
    allotment: Allotment[UUID, UUID] = Allotment([demand.asking for demand in demands], apart=apart)
    priorities, useful = {}, Counter[UUID]()
    for one in sorted(held, key=lambda one: one.id):
        if one.stays:
            priorities[one.id] = allotment.give(_given(one)).priority
            useful[one.cluster_id] += priorities[one.id] > NOBODY
    return Working(allotment, priorities, useful)


@dataclass(frozen=True, slots=True)
class Counted:
    """What all machines of an organisation take of its quotas, and who stays; the same for each of its clusters."""

    quota: Quota
    used: Mapping[str, float]
    kept: Mapping[UUID, int]
    """By cluster, machines that stay within the quotas."""


def count(
    quotas: Sequence[tuple[str, Quota]],
    held: Sequence[Held],
    priorities: Mapping[UUID, int],
    life_s: float,
    returning: Sequence[Held] = (),
) -> Counted | None:
    """Choose who stays within the organisation's quotas; None: nothing is bounded.

    Where they are exceeded, the machines that stay are chosen among those of all its clusters: the young and the
    highest priority first, then who would lose most. Those that are `returning` take of what is left for new ones and
    push nobody out yet.
    """
    quota = tightest(known for _, known in quotas)
    if quota is None or not any(quota.bounds()):
        return None
    ranked = sorted((one for one in held if one.stays), key=lambda one: _rank_of(one, priorities, life_s))
    kept = Counter(one.cluster_id for one in keep_within(quota, ranked))
    return Counted(quota, use_of(quota, [*held, *returning]), kept)


def bound_by_organisation(
    quotas: Sequence[tuple[str, Quota]], counted: Counted, place: Place
) -> Bound | None:
    """What the organisation's quotas leave the cluster; `quotas` with the names of the policies that hold them.

    What stays here is what this cluster may have, and more where there is room.
    """
    left = left_of(counted.quota, counted.used, place.size)
    if left is None:
        return None
    mine = counted.kept.get(place.cluster_id, 0)
    if left.machines > 0:
        return Bound(min(MOST, mine + left.machines))
    name = next(name for name, known in quotas if getattr(known, left.kind) == left.most)
    what = f"the organisation's quota of {_tell(left.most, left.kind)} (policy {name})"
    state = "is exceeded" if left.used > left.most else "is used up"
    return Bound(mine, f"{what} {state}: {left.used:.10g} are taken on all its clusters")


def _rank_of(one: Held, priorities: Mapping[UUID, int], life_s: float) -> tuple[bool, int, float, UUID]:
    return one.age_s >= life_s, -priorities.get(one.id, 0), -one.progress_s, one.id


def bound_by_projects(
    demands: Sequence[Demand], working: Working, place: Place, *, apart: bool
) -> Bound | None:
    """What the quotas of projects leave the cluster: a machine that would work for nobody is not made, and not kept."""
    here = [demand.asking.is_bounded for demand in demands if _may_work(demand.asking, place)]
    if here and not (all(here) if apart else any(here)):
        return None
    mine = working.useful.get(place.cluster_id, 0)
    more = working.allotment.copy().give_more(_next(place), place.most)
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
