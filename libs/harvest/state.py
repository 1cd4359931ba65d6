"""The state as compact JSON: what is written and read back decides the same.

Under 2 KiB for a cluster of up to about 24 hosts; every further host adds some 60 bytes.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from libs.harvest.types import HostMemory, Reason, ReasonCode, Rung, State, Verdict

_VERSION = 1
_TIMES = {
    "at": "sampled_at",
    "vs": "verdict_since",
    "is": "idle_since",
    "bs": "busy_since",
    "ps": "pressed_since",
    "gs": "grown_at",
    "rs": "rung_since",
}


def to_json(state: State) -> dict[str, Any]:
    """A JSON-serialisable value; what stands at its default is left out."""
    document: dict[str, Any] = {"v": _VERSION, "verdict": state.verdict.value, "rung": int(state.rung)}
    for short, name in _TIMES.items():
        time: datetime | None = getattr(state, name)
        if time is not None:
            document[short] = time.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if state.hosts:
        document["hosts"] = [_host_to_json(host, memory) for host, memory in state.hosts]
    if state.wanted:
        document["wanted"] = state.wanted
    if state.disk_room is not None:
        document["disk"] = state.disk_room
    if state.datastore_short:
        document["short"] = True
    if state.reason is not None:
        reason = state.reason
        document["reason"] = [reason.code.value, reason.signal, reason.value, reason.bound, reason.host]
    return document


def from_json(document: Mapping[str, Any]) -> State:
    """Read what `to_json` wrote. Raises ValueError on anything else; `State()` is then a safe start."""
    try:
        if document["v"] != _VERSION:
            raise ValueError(f"state version {document['v']!r} is not known")
        times = {name: _time(document[short]) for short, name in _TIMES.items() if short in document}
        reason = document.get("reason")
        return State(
            hosts=tuple(_host_from_json(row) for row in document.get("hosts", ())),
            verdict=Verdict(document["verdict"]),
            rung=Rung(document["rung"]),
            wanted=int(document.get("wanted", 0)),
            disk_room=document.get("disk"),
            datastore_short=bool(document.get("short", False)),
            reason=None if reason is None else Reason(ReasonCode(reason[0]), *reason[1:]),
            **times,
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"not a state: {error!r}") from error


def _host_to_json(host: str, memory: HostMemory) -> list[Any]:
    budget, capacity = _short(memory.budget_mhz), _short(memory.capacity_mhz)
    row = [host, memory.level, memory.variance, memory.last, budget, capacity, memory.room]
    return [*row, _short(memory.rest_s)] if memory.rest_s else row


def _host_from_json(row: list[Any]) -> tuple[str, HostMemory]:
    host, level, variance, last, budget, capacity, room, *rest = row
    return str(host), HostMemory(
        float(level),
        float(variance),
        float(last),
        float(budget),
        float(capacity),
        int(room),
        float(rest[0]) if rest else 0.0,
    )


def _short(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
