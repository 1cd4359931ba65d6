"""A policy tried on a cluster's own history, in a process of its own: lines of JSON in, lines of JSON out.

Nothing else of stats needs numpy, so nothing else imports this.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from libs.harvest.backtest.coarse import Coarse
from libs.harvest.backtest.run import Actuator, Options, prepare, widen
from libs.harvest.backtest.trace import CORE_MHZ, HOST_MEMORY_MIB, BadTrace, Floats, Ints, Load, hold
from libs.harvest.document import parse
from services.stats.domain.history import MOST_HOST_DAYS, STEP_S, STEPS_A_DAY, WHOLE, tell

_POINTS = 1_000


def answer(lines: Iterable[str]) -> Iterator[str]:
    """First what is asked, then one line per host and day; out come shares done, and at last `result` or `error`.

    A line of history: day (counted from the first), host, steps of the day, owner's CPU and memory in 1/10,000
    of the host (memory -1: not measured), capacities.
    """
    given = iter(lines)
    asked = json.loads(next(given))
    try:
        load, covered = _assemble(asked, given)
        policy = parse(asked["document"])
        policy = widen(policy, load) if asked["is_preset"] else policy
        options = Options(guard_s=asked["guard_s"], actuator=Actuator(asked["actuator"]))
        replay = prepare(policy, load, options)
        for days in replay.days():
            yield json.dumps({"done": round(days / load.days, 4)})
        assert isinstance(replay, Coarse)
        yield json.dumps({"result": _show(replay, load, asked, covered)})
    except BadTrace as problem:
        yield json.dumps({"error": f"{problem}"})


def _assemble(asked: dict[str, Any], lines: Iterable[str]) -> tuple[Load, float]:
    """The owners of the cluster's hosts, and the share of the time in which they were measured."""
    rows = _read(lines, asked["days"])
    names = sorted({row.host for row in rows})
    steps = round(asked["days"] * STEPS_A_DAY)
    places = {name: place for place, name in enumerate(names)}
    cpu, memory = (np.full((len(names), steps), np.nan) for _ in range(2))
    capacity, memory_mib = np.zeros(len(names)), np.zeros(len(names))
    for row in rows:
        place, number = places[row.host], row.steps - asked["first_step"]
        inside = (number >= 0) & (number < steps)
        cpu[place, number[inside]] = row.cpu[inside] / WHOLE
        memory[place, number[inside]] = np.where(row.memory < 0, np.nan, row.memory / WHOLE)[inside]
        capacity[place] = max(capacity[place], row.cpu_mhz)
        memory_mib[place] = max(memory_mib[place], row.memory_mib)
    measured = np.isfinite(cpu)
    load = _to_load(asked, names, _Columns(cpu, memory, capacity, memory_mib))
    return load, float(measured.mean()) if measured.size else 0.0


@dataclass(frozen=True, slots=True)
class _Row:
    """A host's day; steps are counted from the first day's midnight."""

    host: str
    steps: Ints
    cpu: Ints
    memory: Ints
    cpu_mhz: float
    memory_mib: float


def _read(lines: Iterable[str], days: int) -> list[_Row]:
    """Every line. Raises BadTrace as soon as there are more hosts than can be held."""
    rows: list[_Row] = []
    names: set[str] = set()
    for line in lines:
        day, host, at, cpu, memory, cpu_mhz, memory_mib = json.loads(line)
        names.add(host)
        if len(names) * days > MOST_HOST_DAYS:
            raise BadTrace(f"the cluster has too many hosts for {days} days at once: give fewer")
        steps = np.asarray(at, dtype=np.int64) + day * STEPS_A_DAY
        rows.append(_Row(host, steps, np.asarray(cpu), np.asarray(memory), cpu_mhz, memory_mib))
    return rows


@dataclass(frozen=True, slots=True)
class _Columns:
    """What was measured, by host, and in shares by host and step."""

    cpu: Floats
    memory: Floats
    capacity: Floats
    memory_mib: Floats


def _to_load(asked: dict[str, Any], names: list[str], given: _Columns) -> Load:
    owner = hold(given.cpu, STEP_S, np.nan)
    there = np.isfinite(owner)
    kept = there.any(axis=0)
    if kept.sum() < 2:
        raise BadTrace("nothing was measured of this cluster in that time: give more days, or wait")
    memory = hold(given.memory, STEP_S, np.nan)
    has_memory = bool(np.isfinite(memory).any()) and bool((given.memory_mib > 0).all())
    # What is missing where anything is known counts as full: nobody is sent there.
    memory = np.where(np.isfinite(memory), memory, 1.0)
    cores = np.array([float(asked["cores"].get(name, 0)) for name in names])
    cores = np.where(cores > 0, cores, np.maximum(1.0, np.round(given.capacity / CORE_MHZ)))
    return Load(
        owner=np.where(there, owner, 1.0)[:, kept],
        step_s=STEP_S,
        cores=cores,
        core_mhz=float(given.capacity.sum() / cores.sum()) or CORE_MHZ,
        memory=memory[:, kept] if has_memory else None,
        memory_mib=float(given.memory_mib.mean()) if has_memory else HOST_MEMORY_MIB,
        memory_binds=has_memory,
        absent=~there[:, kept],
        numbers=np.flatnonzero(kept),
        begins=datetime.fromisoformat(asked["since"]),
    )


def _show(replay: Coarse, load: Load, asked: dict[str, Any], covered: float) -> dict[str, Any]:
    figures = replay.figures().as_json()
    covered_percent = round(100.0 * covered, 1)
    return {
        "sentence": tell(figures, asked["days"], covered_percent),
        "covered_percent": covered_percent,
        "memory_known": load.memory_binds,
        "figures": figures,
        "series": _series(replay, load),
    }


def _series(replay: Coarse, load: Load) -> dict[str, Any]:
    """What the owner used and what would have been lent, shares of what was there, as means of equal stretches."""
    stride = -(-load.owner.shape[1] // _POINTS)
    here = load.cores[:, None] * (1.0 if load.absent is None else ~load.absent)
    size = np.maximum(1.0, here.sum(axis=0))
    owner = (load.owner * here).sum(axis=0) / size
    lent = replay.lent * load.cores.sum() / size
    whole = range(0, owner.size, stride)
    begins = [load.at_s(step) for step in whole]
    return {
        "step_s": stride * load.step_s,
        "at_s": [round(one) for one in begins],
        "owner": [round(float(owner[at : at + stride].mean()), 4) for at in whole],
        "lent": [round(float(lent[at : at + stride].mean()), 4) for at in whole],
    }
