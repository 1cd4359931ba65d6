"""A backtest on a recorded trace, worked out here, without a service."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from libs.harvest.document import parse
from services.cli.backtest.results import Result
from services.cli.client import Failed

Named = list[tuple[str, dict[str, Any], bool]]
"""Policies: what they are called, their documents, and whether it is a preset, which has no machine of its own."""


def replay_here(policies: Named, trace: Path, form: str | None, options: Any) -> tuple[list[Result], bool]:
    """Every policy's replay; what was done so far when somebody interrupts, and whether that is all."""
    from libs.harvest.backtest.run import prepare, read_load, widen
    from libs.harvest.backtest.trace import BadTrace

    try:
        load = read_load(_read_trace(trace, form), options)
    except BadTrace as problem:
        raise Failed(f"--trace: {problem}") from None
    results: list[Result] = []
    with bar("days") as progress:
        for name, document, is_preset in policies:
            policy = parse(document)
            replay = prepare(widen(policy, load) if is_preset else policy, load, options)
            task, whole = progress.add_task(name, total=load.days), True
            try:
                for done in replay.days():
                    progress.update(task, completed=done)
            except KeyboardInterrupt:
                whole = False
            results.append(_to_result(name, replay, load))
            if not whole:
                return results, False
    return results, True


def bar(unit: str) -> Progress:
    """A progress bar on standard error where a person looks, gone when it is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(f"{{task.completed:.0f}} of {{task.total:.0f}} {unit}"),
    )
    console = Console(stderr=True)
    return Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    )


def _to_result(name: str, replay: Any, load: Any) -> Result:
    cores = load.cores / load.cores.sum()
    owner = (load.owner * cores[:, None]).sum(axis=0)
    at_s = [load.at_s(step) for step in range(owner.size)]
    figures, lent = replay.figures().as_json(), replay.lent.tolist()
    return Result(
        name, figures, owner.tolist(), lent, at_s, load.step_s, None if load.undated else load.begins
    )


def _read_trace(path: Path, form: str | None) -> Any:
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
