"""The state as compact JSON: what is written and read back decides the same.

Under 2 KiB and 200 bytes a host; a host takes some 120. What an earlier release wrote is read too.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from libs.harvest.types import HostMemory, Reason, ReasonCode, Rung, State, Steering, Track, Trend, Verdict

_VERSION = 2
_FIRST_VERSION = 1
"""Its hosts had one spread and no peak."""
_NO_LIMIT = -1
_TIMES = {
    "at": "sampled_at",
    "vs": "verdict_since",
    "is": "idle_since",
    "bs": "busy_since",
    "ps": "pressed_since",
    "gs": "grown_at",
    "rs": "rung_since",
    "ds": "short_since",
    "ss": "stuck_since",
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
        # Beside them, not in them: an earlier release reads its own rows and leaves this.
        document["hi"] = [
            high for _, memory in state.hosts for high in (memory.trend.high, memory.trend.high_before)
        ]
    if state.interval_s is not None:
        document["iv"] = _short(state.interval_s)
    if state.reason is not None:
        reason = state.reason
        document["reason"] = [reason.code.value, reason.signal, reason.value, reason.bound, reason.host]
    plain: dict[str, Any] = {"wanted": state.wanted or None, "disk": state.disk_room, "ex": state.exposed}
    plain["st"] = None if state.steering is None else _steering_to_json(state.steering)
    plain["room"] = state.room_mib
    plain["short"] = state.datastore_short or None
    return document | {short: value for short, value in plain.items() if value is not None}


def from_json(document: Mapping[str, Any]) -> State:
    """Read what `to_json` wrote. Raises ValueError on anything else; `State()` is then a safe start."""
    try:
        if document["v"] not in (_FIRST_VERSION, _VERSION):
            raise ValueError(f"state version {document['v']!r} is not known")
        read_host = _host_from_json if document["v"] == _VERSION else _first_host_from_json
        times = {name: _time(document[short]) for short, name in _TIMES.items() if short in document}
        reason = document.get("reason")
        return State(
            hosts=_add_highs([read_host(row) for row in document.get("hosts", ())], document.get("hi", ())),
            verdict=Verdict(document["verdict"]),
            rung=Rung(document["rung"]),
            wanted=int(document.get("wanted", 0)),
            disk_room=document.get("disk"),
            room_mib=document.get("room"),
            datastore_short=bool(document.get("short", False)),
            exposed=document.get("ex"),
            interval_s=None if "iv" not in document else float(document["iv"]),
            steering=_steering_from_json(document["st"]) if "st" in document else None,
            reason=None if reason is None else Reason(ReasonCode(reason[0]), *reason[1:]),
            **times,
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"not a state: {error!r}") from error


def _add_highs(
    hosts: Sequence[tuple[str, HostMemory]], highs: Sequence[Any]
) -> tuple[tuple[str, HostMemory], ...]:
    """The hosts with what an earlier release did not write: then the peak is all that is known."""
    if len(highs) != 2 * len(hosts):
        highs = [memory.trend.peak for _, memory in hosts for _ in range(2)]
    pairs = zip(hosts, highs[::2], highs[1::2], strict=True)
    return tuple(
        (host, memory._replace(trend=memory.trend._replace(high=float(high), high_before=float(before))))
        for (host, memory), high, before in pairs
    )


def _host_to_json(host: str, memory: HostMemory) -> list[Any]:
    trend, budget, capacity = memory.trend, _short(memory.budget_mhz), _short(memory.capacity_mhz)
    spare_mib = _NO_LIMIT if memory.spare_mib is None else memory.spare_mib
    row = [host, budget, capacity, spare_mib, trend.level, trend.fast, trend.slow, trend.peak, trend.last]
    row += [trend.plain_level, trend.plain_variance, memory.wish, memory.plain_wish]
    seconds = [_short(value) for value in (memory.rest_s, memory.owed_s, memory.full_s)]
    while seconds and not seconds[-1]:
        seconds.pop()
    return row + seconds


def _host_from_json(row: list[Any]) -> tuple[str, HostMemory]:
    host, budget, capacity, spare_mib, *told = row
    if not 9 <= len(told) <= 12:
        raise ValueError(f"a host with {len(row)} values")
    *trend, wish, plain_wish = [float(value) for value in told[:9]]
    rest_s, owed_s, full_s = (*map(float, told[9:]), 0.0, 0.0, 0.0)[:3]
    memory = HostMemory(
        Trend(*trend),
        float(budget),
        float(capacity),
        _spare_mib(spare_mib),
        rest_s,
        owed_s,
        wish,
        plain_wish,
        full_s,
    )
    return str(host), memory


def _first_host_from_json(row: list[Any]) -> tuple[str, HostMemory]:
    host, level, variance, last, budget, capacity, spare_mib, *rest = row
    level, variance, last = float(level), float(variance), float(last)
    trend = Trend(level, variance, variance, max(level, last), last, level, variance)
    return str(host), HostMemory(
        trend, float(budget), float(capacity), _spare_mib(spare_mib), *map(float, rest)
    )


def _steering_to_json(steering: Steering) -> list[Any]:
    tracks = [
        [track.soft_gain, track.hard_gain, track.contended, track.hard, track.lent]
        for track in (steering.own, steering.plain)
    ]
    return [*tracks, _short(steering.observed_s), int(steering.plain_leads), _short(steering.led_s)]


def _steering_from_json(found: list[Any]) -> Steering:
    own, plain, observed_s, plain_leads, led_s = found
    return Steering(
        Track(*map(float, own)),
        Track(*map(float, plain)),
        float(observed_s),
        bool(plain_leads),
        float(led_s),
    )


def _spare_mib(value: Any) -> int | None:
    return None if int(value) == _NO_LIMIT else int(value)


def _short(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
