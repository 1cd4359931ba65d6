"""Tables as people read them: what was measured, what others published, and where the frontier stands."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

_COLUMNS = (
    ("harvest_percent", "oracle%", 1), ("harvest_fluid_percent", "fluid%", 1), ("contention_percent", "cont.%", 3),
    ("hard_percent", "hard%", 3), ("over_permille", "over‰", 3), ("floor_added_percent", "floor%", 3),
    ("deploys_per_host_day", "dep/hd", 2), ("limit_changes_per_host_hour", "chg/hh", 1),
    ("waste_percent", "waste%", 2), ("memory_bound_percent", "mem%", 1), ("cpu_s", "cpu s", 0),
)  # fmt: skip
_WIDTH = 40
PUBLISHED: Mapping[tuple[str, float], Mapping[str, str]] = {
    ("coarse", 2.0): {
        "CloudTides 30/80": "41.8 .179 .046 3.1 .78",
        "CloudTides 60/85": "76.3 .681 .369 11.2 1.46",
        "HTCondor UWCS": "62.3 .516 .318 4.4 .72",
        "5 sigma over 2 h": "87.1 .635 .213 3.4 .39",
        "p99 of 24 h": "67.8 .145 .035 .9 .12",
        "EWMA + 2 sigma, guard 60 s": "100.0 .279 .097 .26 .02",
        "balanced, guard 30 s": "95.5 .099 .028 .16 .02",
    },
    ("coarse", 4.0): {"CloudTides 30/80": "33", "balanced, guard 30 s": "82 .132"},
    ("fine", 2.0): {
        "last + 5 %": "92.5 6.85 1.63 4.96",
        "EWMA + 2 sigma": "83.1 .582 .144 .43",
        "EWMA + 3 sigma": "78.4 .273 .082 .24",
        "EWMA + 4 sigma": "74.6 .157 .053 .15",
        "EWMA + 5 sigma": "71.0 .098 .038 .11 (with the peak of 30 min)",
        "EWMA + 6 sigma": "67.4 .063 .025 .08 (with the peak of 60 min)",
    },
    ("fine", 4.0): {
        "last + 5 %": "90.3 10.8",
        "EWMA + 2 sigma": "70.8 .635",
        "EWMA + 3 sigma": "63.7 .287",
        "EWMA + 4 sigma": "58.1 .157",
        "EWMA + 5 sigma": "52.9 .096 (with the peak of 30 min)",
        "EWMA + 6 sigma": "47.6 .060 (with the peak of 60 min)",
    },
}
"""Coarse: another month, % of the oracle, contention, hard, deploys, waste; the engine's line is the best known tuned
ceiling. Fine: August, % of fluid, contention, hard, over."""


def published(row: Row) -> str:
    """What is known of the same policy under the same rules; empty: nothing."""
    return PUBLISHED.get((row["part"], row["overcommit"]), {}).get(label_of(row), "")


def label_of(row: Row) -> str:
    """The row's name with what differs from the usual."""
    actuator = ", one ceiling per cluster" if row["actuator"] == "cluster" else ""
    announced = ", announced" if row["announced"] else ""
    guard = f", guard {row['guard_s']:g} s" if row["guard_s"] else ""
    return f"{row['name']}{actuator}{announced}{guard}"


def heading(title: str, row: Row) -> str:
    """Above a table."""
    names = "".join(f"{name:>8}" for _, name, _ in _COLUMNS)
    told = f"{title}: {row['hosts']} hosts, {row['days']:.1f} days, owner load {row['owner_percent']:.1f} %"
    return f"\n{told}\n{'':{_WIDTH}}{names}  published"


def line(row: Row) -> str:
    """One row."""
    cells = "".join(_cell(row.get(name), digits) for name, _, digits in _COLUMNS)
    return f"{label_of(row):{_WIDTH}}{cells}  {published(row)}".rstrip()


def frontier(rows: Sequence[Row]) -> list[str]:
    """For each row of the engine: points of harvest above EWMA + k sigma at equal contention, hard and over."""
    known = [row for row in rows if row["name"].startswith("EWMA") and not row["announced"]]
    if not known:
        return []
    lines = []
    for row in rows:
        if row["preset"] and row["actuator"] == "host":
            gains = [_gain(row, known, by) for by in ("contention_percent", "hard_percent", "over_permille")]
            told = ", ".join(
                f"{'beyond it' if gain is None else f'{gain:+.1f}'} at equal {name}"
                for gain, name in zip(gains, ("contention", "hard", "over"), strict=True)
            )
            lines.append(f"  {label_of(row)} beside EWMA + k sigma: {told}")
    return lines


def _gain(row: Row, known: Sequence[Row], by: str) -> float | None:
    """Points above the line between the two neighbours, by the logarithm of the harm; None: outside of all."""
    points = sorted((math.log(other[by]), other["harvest_fluid_percent"]) for other in known if other[by] > 0)
    if row[by] <= 0 or not points:
        return None
    at = math.log(row[by])
    for (left, low), (right, high) in itertools.pairwise(points):
        if left <= at <= right and right > left:
            there = low + (high - low) * (at - left) / (right - left)
            return float(row["harvest_fluid_percent"] - there)
    return None


def _cell(value: float | None, digits: int) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.{digits}f}"
