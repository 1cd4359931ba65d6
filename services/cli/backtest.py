"""`tides policy backtest`: a policy on a recorded cluster, here, without a service."""

import html
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from libs.harvest.document import PRESETS, InvalidPolicy, parse
from libs.harvest.reading import LARGEST_DOCUMENT_BYTES, Unreadable, read_document
from libs.harvest.types import Policy
from services.cli import show
from services.cli.client import Failed
from services.cli.watching import AsJson

INTERRUPTED = 130
_PRESET = "preset:"
_ANY_MACHINE = {"template": "-", "vcpus": 1, "memory_mib": 1024, "disk_gib": 10.0}
_WIDTH, _HEIGHT, _POINTS = 960, 260, 960


class Form(StrEnum):
    """Formats of a trace; those of libs.harvest.backtest, which is loaded only when it is asked for."""

    TIDES = "tides"
    GWA_T_12 = "gwa-t-12"
    NPZ = "npz"
    CSV = "csv"


class Model(StrEnum):
    """How closely time is followed."""

    COARSE = "coarse"
    FINE = "fine"


class Actuator(StrEnum):
    """What a limit stands on."""

    HOST = "host"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Result:
    """One policy's replay."""

    policy: str
    figures: dict[str, Any]
    lent: list[float]
    """Share of the cluster, by step."""
    owner: list[float]


def backtest(  # noqa: PLR0913, PLR0917
    policy: Annotated[str, typer.Option(help="A YAML or JSON file, or preset:NAME.")],
    trace: Annotated[Path, typer.Option(help="A file; for gwa-t-12 a folder or zip of CSV files too.")],
    form: Annotated[Form | None, typer.Option("--format", help="Left out: by the file's name.")] = None,
    model: Annotated[Model, typer.Option(help="5-minute means, or 30-second ticks.")] = Model.COARSE,
    actuator: Annotated[
        Actuator, typer.Option(help="A limit per host, or one that is split.")
    ] = Actuator.HOST,
    overcommit: Annotated[float, typer.Option(min=0.25, max=64, help="vCPUs per core of the hosts.")] = 2.0,
    guard_seconds: Annotated[float, typer.Option(min=0, max=300, help="Coarse only; 0: none.")] = 30.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the placement and of the ticks.")] = 7,
    days: Annotated[tuple[float, float] | None, typer.Option(help="From and to, counted from 0.")] = None,
    compare: Annotated[str | None, typer.Option(help="A second policy beside it.")] = None,
    json_: AsJson = False,
    plot: Annotated[Path | None, typer.Option(help="Write a picture: one HTML file.")] = None,
) -> None:
    """What a policy would have lent on a recorded cluster, and how long its owner would have been contended."""
    from libs.harvest.backtest import run

    options = run.Options(run.Model(model), run.Actuator(actuator), overcommit, guard_seconds, seed, days)
    chosen = [policy] if compare is None else [policy, compare]
    policies = [(name, _read_policy(name)) for name in chosen]
    results, whole = _run(policies, _read_trace(trace, form), options)
    if plot is not None:
        _write(plot, draw(results))
    if json_:
        figures = [{"policy": one.policy, **one.figures} for one in results]
        show.as_json(figures[0] if compare is None and figures else figures)
    else:
        _tell(results)
    if not whole:
        raise typer.Exit(INTERRUPTED)


def _read_policy(name: str) -> tuple[Policy, bool]:
    """The policy, and whether it is a preset, which has no machine of its own."""
    if name.startswith(_PRESET):
        preset = name.removeprefix(_PRESET)
        if preset not in PRESETS:
            raise Failed(f"--policy: no preset is called {preset!r}; there are: {', '.join(PRESETS)}")
        return parse({**PRESETS[preset], "machine": _ANY_MACHINE}), True
    path = Path(name)
    kind = "application/json" if path.suffix == ".json" else "application/yaml"
    try:
        with path.open("rb") as file:
            document = read_document(file.read(LARGEST_DOCUMENT_BYTES + 1), kind)
        return parse(document), False
    except OSError as error:
        raise Failed(f"--policy: {path}: {error.strerror}; a preset is named preset:balanced") from None
    except (InvalidPolicy, Unreadable) as error:
        raise Failed(f"--policy: {path}: {error}") from None


def _read_trace(path: Path, form: Form | None) -> Any:
    from libs.harvest.backtest.formats import Format, guess_format, read_trace
    from libs.harvest.backtest.trace import BadTrace

    try:
        paths = sorted(path.rglob("*.csv")) if path.is_dir() else [path]
        files = {str(one.relative_to(path)) if path.is_dir() else one.name: one.read_bytes() for one in paths}
    except OSError as error:
        raise Failed(f"--trace: {path}: {error.strerror}") from None
    try:
        return read_trace(guess_format(path.name) if form is None else Format(form), files)
    except BadTrace as problem:
        raise Failed(f"--trace: {path}: {problem}") from None


def _run(policies: Any, trace: Any, options: Any) -> tuple[list[Result], bool]:
    """Every policy's replay; what was done so far when somebody interrupts, and whether that is all."""
    from libs.harvest.backtest.run import prepare, read_load, widen
    from libs.harvest.backtest.trace import BadTrace

    try:
        load = read_load(trace, options)
    except BadTrace as problem:
        raise Failed(f"--trace: {problem}") from None
    results: list[Result] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} days"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        for name, (policy, is_preset) in policies:
            replay = prepare(widen(policy, load) if is_preset else policy, load, options)
            task, whole = progress.add_task(name, total=load.days), True
            try:
                for done in replay.days():
                    progress.update(task, completed=done)
            except KeyboardInterrupt:
                whole = False
            owner = load.owner.mean(axis=0).tolist()
            results.append(Result(name, replay.figures().as_json(), replay.lent.tolist(), owner))
            if not whole:
                return results, False
    return results, True


def _tell(results: list[Result]) -> None:
    for one in results:
        found = one.figures
        oracle = (
            "" if found["harvest_percent"] is None else f"{found['harvest_percent']:.1f} % of the oracle, "
        )
        show.say(
            f"{one.policy}: {found['core_hours']:.0f} core-hours on {found['hosts']} hosts in {found['days']:.1f} days "
            f"({oracle}{found['harvest_fluid_percent']:.1f} % of all there was); owners above 90 % for "
            f"{found['above_90_minutes']:.0f} host-minutes ({found['contention_percent']:.3f} % of the time)"
        )
    names = list(results[0].figures)
    columns = ["", *(f"{one.policy} " for one in results)]
    show.table(
        columns,
        [
            [name, *("-" if one.figures[name] is None else one.figures[name] for one in results)]
            for name in names
        ],
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failed(f"--plot: {path}: {error.strerror}") from None


def draw(results: list[Result]) -> str:
    """One HTML page that needs nothing else: owner load, and what each policy lent on top of it."""
    colours = ["#1b7f79", "#c0561b"]
    lines = [_line(results[0].owner, "#555555")]
    legend = ["<li style='color:#555555'>owner</li>"]
    for one, colour in zip(results, colours, strict=False):
        lines.append(_line(one.lent, colour))
        told = html.escape(f"{one.policy}: lent; {one.figures['core_hours']:.0f} core-hours")
        legend.append(f"<li style='color:{colour}'>{told}</li>")
    return (
        "<!doctype html><meta charset='utf-8'><title>Backtest</title><body style='font-family:sans-serif'>"
        "<h1>What would have been lent</h1>"
        f"<p>Share of the cluster's CPU over {results[0].figures['days']:.1f} days; the dashed line is 90 %.</p>"
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width='100%' role='img' aria-label='owner load and lent share'>"
        f"<rect width='{_WIDTH}' height='{_HEIGHT}' fill='#f6f6f4'/>"
        f"<line x1='0' x2='{_WIDTH}' y1='{_HEIGHT * 0.1:.0f}' y2='{_HEIGHT * 0.1:.0f}' stroke='#999' "
        f"stroke-dasharray='4'/>{''.join(lines)}</svg><ul>{''.join(legend)}</ul></body>"
    )


def _line(shares: list[float], colour: str) -> str:
    stride = max(1, -(-len(shares) // _POINTS))
    means = [
        sum(part) / len(part) for part in (shares[at : at + stride] for at in range(0, len(shares), stride))
    ]
    across = _WIDTH / max(1, len(means) - 1)
    points = " ".join(f"{at * across:.1f},{_HEIGHT * (1 - mean):.1f}" for at, mean in enumerate(means))
    return f"<polyline fill='none' stroke='{colour}' points='{points}'/>"
