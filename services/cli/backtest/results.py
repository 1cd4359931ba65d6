"""What a backtest brought, wherever it was worked out."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.cli import show


@dataclass(frozen=True, slots=True)
class Result:
    """One policy's replay."""

    policy: str
    figures: dict[str, Any]
    owner: list[float]
    """Share of the cluster, by stretch of `step_s`."""
    lent: list[float]
    at_s: list[float]
    """When each stretch began, from `begins` on."""
    step_s: float
    begins: datetime | None = None
    """None: a trace does not say."""
    sentence: str = ""
    covered_percent: float = 100.0


UNITS = {
    "core_hours": "core-hours lent",
    "harvest_percent": "of the oracle, %",
    "harvest_fluid_percent": "of all that stood below 90 %, %",
    "contention_percent": "host-time above 90 %, %",
    "hard_percent": "host-time above 100 %, %",
    "floor_contention_percent": "host-time above 90 % with machines at their floor, %",
    "floor_added_percent": "of it where the owner alone stood at 90 % or less, %",
    "over_permille": "mean above 90 %, per mille",
    "above_90_minutes": "host-minutes above 90 %",
    "deploys_per_host_day": "deploys per host and day",
    "limit_changes_per_host_hour": "limit changes per host and hour",
    "waste_percent": "boots and lost work, %",
    "oracle_core_hours": "core-hours of the oracle",
    "fluid_core_hours": "core-hours below 90 %",
    "memory_bound_percent": "host-time bound by memory, %",
    "hosts": "hosts",
    "days": "days",
}
"""Every figure in words, in the order in which it is read."""


def tell(results: list[Result]) -> None:
    """A sentence for each, and all figures beside each other."""
    for one in results:
        show.say(f"{one.policy}: {_sentence(one)}")
    columns = ["", *(f"{one.policy} " for one in results)]
    names = [name for name in UNITS if name in results[0].figures]
    rows = [
        [name, *("-" if one.figures.get(name) is None else one.figures[name] for one in results)]
        for name in names
    ]
    show.table(columns, rows)


def _sentence(one: Result) -> str:
    if one.sentence:
        return one.sentence
    found = one.figures
    oracle = "" if found["harvest_percent"] is None else f"{found['harvest_percent']:.1f} % of the oracle, "
    return (
        f"{found['core_hours']:.0f} core-hours on {found['hosts']} hosts in {found['days']:.1f} days "
        f"({oracle}{found['harvest_fluid_percent']:.1f} % of all there was); owners above 90 % for "
        f"{found['above_90_minutes']:.0f} host-minutes ({found['contention_percent']:.3f} % of the time)"
    )
