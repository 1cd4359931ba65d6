"""The picture of a backtest: one HTML page that needs nothing else, no script and no network."""

import html
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from services.cli.backtest.results import UNITS, Result

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 1000.0, 220.0, 44.0, 26.0
_POINTS = 760
_HOURS = 24
_DAY_S = 86_400.0
_BETTER_IF_LESS = (
    "contention_percent", "hard_percent", "floor_added_percent", "over_permille", "above_90_minutes",
    "deploys_per_host_day", "limit_changes_per_host_hour", "waste_percent",
)  # fmt: skip
_BETTER_IF_MORE = ("core_hours", "harvest_percent", "harvest_fluid_percent")
_STYLE = """
:root { --ink:#1d2528; --soft:#5c6a70; --paper:#fbfaf7; --card:#fff; --line:#e3e1da;
  --owner:#b9c0c4; --lent:#13807a; --edge:#0c5f5a; --hot:#c2410c; }
@media (prefers-color-scheme: dark) { :root { --ink:#e9edee; --soft:#9aa7ad; --paper:#14191b; --card:#1c2326;
  --line:#2c3539; --owner:#4a555b; --lent:#2fb5ac; --edge:#7fe0d8; --hot:#fb923c; } }
* { box-sizing:border-box }
body { margin:0; background:var(--paper); color:var(--ink);
  font:16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
main { max-width:1080px; margin:0 auto; padding:40px 24px 64px }
h1 { font-size:30px; line-height:1.2; margin:0 0 4px }
h2 { font-size:19px; margin:40px 0 4px }
p { margin:4px 0 12px; color:var(--soft) }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:12px; margin:16px 0 }
.card, figure { background:var(--card); border:1px solid var(--line); border-radius:10px; padding:14px 16px }
.card b { display:block; font-size:25px; line-height:1.15; font-variant-numeric:tabular-nums }
.card span, figcaption, th { color:var(--soft); font-size:13.5px }
.hot b { color:var(--hot) } .lent b { color:var(--lent) }
figure { margin:12px 0 0; padding-bottom:8px }
figcaption { padding:6px 0 }
svg { display:block; width:100%; height:auto }
svg text { fill:var(--soft); font-size:11.5px }
.grid { stroke:var(--line) } .limit { stroke:var(--hot); stroke-dasharray:5 4 }
.owner { fill:var(--owner) } .lent-area { fill:var(--lent); fill-opacity:.8 }
.lent-edge { fill:none; stroke:var(--edge); stroke-width:1 }
.key { display:inline-block; width:11px; height:11px; border-radius:3px; margin:0 5px 0 12px; vertical-align:-1px }
.key:first-child { margin-left:0 }
table { border-collapse:collapse; width:100%; margin-top:12px; font-variant-numeric:tabular-nums;
  background:var(--card) }
th, td { padding:7px 12px; border-bottom:1px solid var(--line); text-align:right }
th:first-child, td:first-child { text-align:left }
td.best { font-weight:700; color:var(--lent) }
"""


def draw(results: Sequence[Result]) -> str:
    """What the owner used and what each policy lent above it, over time and by hour of the day; all figures beside."""
    first = results[0]
    title = "What would have been lent"
    parts = [f"<h1>{title}</h1>", f"<p>{_scope(first)}{_beside(results)}</p>"]
    for one in results:
        heading = f"<h2>{html.escape(one.policy)}</h2>"
        said = f"<p>{html.escape(one.sentence)}</p>" if one.sentence else ""
        parts += [heading, said, _cards(one), _over_time(one), _by_hour(one)]
    parts.append(_table(results))
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{title}</title><style>{_STYLE}</style><body><main>{''.join(parts)}</main></body></html>"
    )


def _scope(one: Result) -> str:
    since = "" if one.begins is None else f" from {one.begins:%-d %B %Y}"
    covered = "" if one.covered_percent >= 99.5 else f"; {one.covered_percent:.1f} % of the time was measured"
    return f"{one.figures['hosts']} hosts, {one.figures['days']:.1f} days{since}{covered}"


def _beside(results: Sequence[Result]) -> str:
    """What the second policy does more or less than the first."""
    if len(results) < 2 or results[0].figures["core_hours"] <= 0:
        return ""
    first, second = results[0].figures, results[1].figures
    share = second["core_hours"] / first["core_hours"] - 1.0
    minutes = second["above_90_minutes"] - first["above_90_minutes"]
    name, other = html.escape(results[1].policy), html.escape(results[0].policy)
    more = "more" if minutes >= 0 else "less"
    return (
        f". {name} lends {abs(share):.1%} {'more' if share >= 0 else 'less'} than {other}, "
        f"with {_minutes(abs(minutes))} {more} of host-time above 90 %."
    )


def _cards(one: Result) -> str:
    found = one.figures
    cards = [
        ("lent", f"{found['core_hours']:,.0f}", "core-hours lent"),
        ("lent", f"{found['harvest_fluid_percent']:.1f} %", "of all that stood below 90 %"),
        ("hot", _minutes(found["above_90_minutes"]), "of host-time above 90 % while lending"),
        ("hot", f"{found['contention_percent']:.3f} %", "of host-time, that is"),
        ("", f"{found['deploys_per_host_day']:.2f}", "deploys per host and day"),
        ("", f"{found['limit_changes_per_host_hour']:.1f}", "limit changes per host and hour"),
    ]
    shown = (
        f"<div class='card {kind}'><b>{value}</b><span>{what}</span></div>" for kind, value, what in cards
    )
    return f"<div class='cards'>{''.join(shown)}</div>"


def _minutes(minutes: float) -> str:
    return f"{minutes:,.0f} min" if minutes < 600 else f"{minutes / 60:,.1f} h"


def _over_time(one: Result) -> str:
    stride = max(1, -(-len(one.owner) // _POINTS))
    whole = range(0, len(one.owner), stride)
    owner, lent = ([_mean(column[at : at + stride]) for at in whole] for column in (one.owner, one.lent))
    when = [one.at_s[at] for at in whole]
    end = when[-1] + stride * one.step_s
    across = [_LEFT + (_WIDTH - _LEFT) * at / max(1.0, end) for at in when]
    ticks = [(_LEFT + (_WIDTH - _LEFT) * at / max(1.0, end), text) for at, text in _day_ticks(one, end)]
    # Where nothing was measured, nothing is drawn.
    breaks = [
        0,
        *(n + 1 for n, (a, b) in enumerate(pairwise(when)) if b - a > 1.5 * stride * one.step_s),
        len(when),
    ]
    areas = "".join(_areas(across[a:b], owner[a:b], lent[a:b]) for a, b in pairwise(breaks))
    return _figure(areas, ticks, "Share of the cluster's CPU over time")


def _by_hour(one: Result) -> str:
    begin = 0.0 if one.begins is None else one.begins.hour * 3600.0 + one.begins.minute * 60.0
    hours: list[list[int]] = [[] for _ in range(_HOURS)]
    for place, at in enumerate(one.at_s):
        hours[int((begin + at) % _DAY_S // 3600)].append(place)
    if not all(hours):
        return ""
    owner, lent = (
        [_mean([column[n] for n in places]) for places in hours] for column in (one.owner, one.lent)
    )
    width = (_WIDTH - _LEFT) / _HOURS
    bars = []
    for hour, (below, above) in enumerate(zip(owner, lent, strict=True)):
        x, top, middle = _LEFT + hour * width + 3, _y(min(1.0, below + above)), _y(below)
        said = f"<title>{hour:02}:00: owner {below:.0%}, lent {above:.0%}</title>"
        bars.append(f"<g>{said}{_bar('owner', x, middle, _HEIGHT)}{_bar('lent-area', x, top, middle)}</g>")
    ticks = [(_LEFT + (hour + 0.5) * width, f"{hour:02}") for hour in range(0, _HOURS, 2)]
    return _figure("".join(bars), ticks, "The mean day, by hour (UTC)")


def _bar(kind: str, x: float, top: float, bottom: float) -> str:
    width = (_WIDTH - _LEFT) / _HOURS - 6
    size = f"width='{width:.1f}' height='{max(0.0, bottom - top):.1f}'"
    return f"<rect class='{kind}' x='{x:.1f}' y='{top:.1f}' {size}/>"


def _areas(across: Sequence[float], owner: Sequence[float], lent: Sequence[float]) -> str:
    tops = [min(1.0, below + above) for below, above in zip(owner, lent, strict=True)]
    low = " ".join(f"{x:.1f},{_y(share):.1f}" for x, share in zip(across, owner, strict=True))
    back = " ".join(
        f"{x:.1f},{_y(share):.1f}" for x, share in reversed(list(zip(across, owner, strict=True)))
    )
    high = " ".join(f"{x:.1f},{_y(share):.1f}" for x, share in zip(across, tops, strict=True))
    feet = f"{across[-1]:.1f},{_HEIGHT:.1f} {across[0]:.1f},{_HEIGHT:.1f}"
    return (
        f"<polygon class='owner' points='{low} {feet}'/><polygon class='lent-area' points='{high} {back}'/>"
        f"<polyline class='lent-edge' points='{high}'/>"
    )


def _figure(inside: str, ticks: Sequence[tuple[float, str]], caption: str) -> str:
    grid = "".join(
        f"<line class='grid' x1='{_LEFT}' x2='{_WIDTH}' y1='{_y(share):.1f}' y2='{_y(share):.1f}'/>"
        f"<text x='{_LEFT - 8}' y='{_y(share) + 4:.1f}' text-anchor='end'>{share:.0%}</text>"
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    places = [(min(max(x, _LEFT + 12), _WIDTH - 14), text) for x, text in ticks]
    days = "".join(
        f"<text x='{x:.1f}' y='{_HEIGHT + 18:.1f}' text-anchor='middle'>{text}</text>" for x, text in places
    )
    limit = f"<line class='limit' x1='{_LEFT}' x2='{_WIDTH}' y1='{_y(0.9):.1f}' y2='{_y(0.9):.1f}'/>"
    key = (
        "<span class='key' style='background:var(--owner)'></span>the owner"
        "<span class='key' style='background:var(--lent)'></span>lent"
        "<span class='key' style='background:var(--hot)'></span>90 %"
    )
    return (
        f"<figure><svg viewBox='0 -8 {_WIDTH:.0f} {_HEIGHT + _BOTTOM + 8:.0f}' role='img' aria-label='{caption}'>"
        f"{grid}{inside}{limit}{days}</svg><figcaption>{key} &nbsp; {caption}</figcaption></figure>"
    )


def _day_ticks(one: Result, end_s: float) -> list[tuple[float, str]]:
    days = end_s / _DAY_S
    every = next((step for step in (1, 2, 5, 7, 14) if days / step <= 12), 30)
    if one.begins is None:
        return [(day * _DAY_S, f"day {day}") for day in range(0, int(days) + 1, every) if day <= days - 0.2]
    midnight = datetime(one.begins.year, one.begins.month, one.begins.day, tzinfo=one.begins.tzinfo)
    dates = [midnight + timedelta(days=day) for day in range(1, int(days) + 1, every)]
    return [((date - one.begins).total_seconds(), f"{date:%-d %b}") for date in dates]


def _table(results: Sequence[Result]) -> str:
    head = "".join(f"<th>{html.escape(one.policy)}</th>" for one in results)
    rows = []
    for name, words in UNITS.items():
        values = [one.figures.get(name) for one in results]
        if all(value is None for value in values):
            continue
        best = _best(name, values)
        cells = "".join(_told(value, value is not None and value == best) for value in values)
        rows.append(f"<tr><td>{words}</td>{cells}</tr>")
    return f"<h2>All figures</h2><table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _best(name: str, values: Sequence[float | None]) -> float | None:
    """The better of two that differ; None: nothing to tell."""
    known = [value for value in values if value is not None]
    if len(set(known)) < 2:
        return None
    return max(known) if name in _BETTER_IF_MORE else min(known) if name in _BETTER_IF_LESS else None


def _told(value: float | None, is_best: bool) -> str:
    return f"<td class='best'>{_cell(value)}</td>" if is_best else f"<td>{_cell(value)}</td>"


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:,.3f}"


def _y(share: float) -> float:
    return _HEIGHT * (1.0 - share)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
