"""`tides policy backtest`: a policy on a recorded trace, or on a cluster's own history."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from libs.harvest.document import PRESETS, InvalidPolicy, parse
from libs.harvest.reading import LARGEST_DOCUMENT_BYTES, Unreadable, read_document
from services.cli import show
from services.cli.access import ask
from services.cli.backtest.here import replay_here
from services.cli.backtest.picture import draw
from services.cli.backtest.results import Result, tell
from services.cli.backtest.there import Question, replay_there
from services.cli.client import Failed
from services.cli.watching import AsJson

INTERRUPTED = 130
USUAL_DAYS = 30
_PRESET = "preset:"
_ANY_MACHINE = {"template": "-", "vcpus": 1, "memory_mib": 1024, "disk_gib": 10.0}


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


class OneOrTwoDays(TyperCommand):
    """`--days N` and `--days A B` are both taken: as one word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = list(args)
        if "--days" in words:
            at = words.index("--days")
            pair = words[at + 1 : at + 3]
            if len(pair) == 2 and all(_is_number(word) for word in pair):
                words[at + 1 : at + 3] = [" ".join(pair)]
        return super().parse_args(ctx, words)


def backtest(  # noqa: PLR0913, PLR0917
    context: typer.Context,
    policy: Annotated[str, typer.Option(help="A YAML or JSON file, or preset:NAME.")],
    trace: Annotated[
        Path | None, typer.Option(help="A file; for gwa-t-12 a folder or zip of CSV files too.")
    ] = None,
    cluster: Annotated[str | None, typer.Option(help="Name or id: on what Tides has seen of it.")] = None,
    form: Annotated[Form | None, typer.Option("--format", help="Left out: by the file's name.")] = None,
    model: Annotated[Model, typer.Option(help="5-minute means, or 30-second ticks (trace).")] = Model.COARSE,
    actuator: Annotated[
        Actuator, typer.Option(help="A limit per host, or one that is split.")
    ] = Actuator.HOST,
    overcommit: Annotated[float, typer.Option(min=0.25, max=64, help="vCPUs per core (trace).")] = 2.0,
    guard_seconds: Annotated[float, typer.Option(min=0, max=300, help="Coarse only; 0: none.")] = 30.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the placement and of the ticks (trace).")] = 7,
    days: Annotated[
        str | None,
        typer.Option(
            metavar="N | A B", help="The last N of a cluster; of a trace the first N, or from A to B."
        ),
    ] = None,
    compare: Annotated[str | None, typer.Option(help="A second policy beside it.")] = None,
    json_: AsJson = False,
    plot: Annotated[Path | None, typer.Option(help="Write a picture: one HTML file.")] = None,
) -> None:
    """What a policy would have lent, and how long the owner would have been contended."""
    if (trace is None) == (cluster is None):
        raise typer.BadParameter("give either --trace FILE or --cluster NAME")
    span = _read_days(days)
    policies = [_read_policy(name) for name in ([policy] if compare is None else [policy, compare])]
    if cluster is not None:
        if model is not Model.COARSE or form is not None:
            raise typer.BadParameter("--model fine and --format belong to --trace")
        question = Question(cluster, _whole_days(span), guard_seconds, actuator.value)
        results = ask(context, lambda client: replay_there(client, policies, question))
        _put_out(results, compare is not None, json_, plot)
        return
    from libs.harvest.backtest import run

    assert trace is not None
    options = run.Options(run.Model(model), run.Actuator(actuator), overcommit, guard_seconds, seed, span)
    results, whole = replay_here(policies, trace, form and form.value, options)
    _put_out(results, compare is not None, json_, plot)
    if not whole:
        raise typer.Exit(INTERRUPTED)


def _put_out(results: Sequence[Result], is_compared: bool, as_json: bool, plot: Path | None) -> None:
    if plot is not None:
        _write(plot, draw(list(results)))
    if as_json:
        figures = [{"policy": one.policy, **_told(one), **one.figures} for one in results]
        show.as_json(figures if is_compared else figures[0])
    else:
        tell(list(results))


def _told(one: Result) -> dict[str, Any]:
    """What only a cluster's history has."""
    return {"sentence": one.sentence, "covered_percent": one.covered_percent} if one.sentence else {}


def _read_days(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    words = text.split()
    if not 1 <= len(words) <= 2 or not all(_is_number(word) for word in words):
        raise typer.BadParameter("--days takes one number, or two: from and to, counted from 0")
    numbers = [float(word) for word in words]
    return (0.0, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def _whole_days(span: tuple[float, float] | None) -> int:
    if span is None:
        return USUAL_DAYS
    if span[0] != 0.0 or span[1] != int(span[1]):
        raise typer.BadParameter("--days of a --cluster is one whole number: the last so many days")
    return int(span[1])


def _is_number(word: str) -> bool:
    try:
        return abs(float(word)) < 1e6
    except ValueError:
        return False


def _read_policy(name: str) -> tuple[str, dict[str, Any], bool]:
    """What it is called, its document, and whether it is a preset, which has no machine of its own."""
    if name.startswith(_PRESET):
        preset = name.removeprefix(_PRESET)
        if preset not in PRESETS:
            raise Failed(f"--policy: no preset is called {preset!r}; there are: {', '.join(PRESETS)}")
        return name, {**PRESETS[preset], "machine": _ANY_MACHINE}, True
    path = Path(name)
    kind = "application/json" if path.suffix == ".json" else "application/yaml"
    try:
        with path.open("rb") as file:
            document = read_document(file.read(LARGEST_DOCUMENT_BYTES + 1), kind)
        parse(document)
    except OSError as error:
        raise Failed(f"--policy: {path}: {error.strerror}; a preset is named preset:balanced") from None
    except (InvalidPolicy, Unreadable) as error:
        raise Failed(f"--policy: {path}: {error}") from None
    return name, document, False


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failed(f"--plot: {path}: {error.strerror}") from None
