"""How things look on a terminal and in a pipe."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.cli.client import plain

PIPE_WIDTH = 240


def console() -> Console:
    """Standard output: as wide as the terminal; in a pipe nothing is cut."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())


def as_json(value: Any) -> None:
    """One JSON document on standard output; what a terminal would obey is escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print("".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; columns whose name ends in a blank are numbers, on the right."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        right = column.endswith(" ")
        shown.add_column(column.rstrip(), justify="right" if right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(cell if isinstance(cell, Text) else plain(_text(cell)) for cell in row))
    console().print(shown)


def say(text: str) -> None:
    """A line on standard output."""
    print(plain(text))


def note(text: str) -> None:
    """A line on standard error: how it goes, beside what was asked for."""
    print(plain(text), file=sys.stderr, flush=True)


def moment(text: str | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time of the API as people read it, in UTC; empty for none."""
    return datetime.fromisoformat(text).strftime(form) if text else ""


def ghz(mhz: float) -> str:
    """MHz as GHz."""
    return f"{mhz / 1000:.1f} GHz"


def percent(part: float, whole: float) -> str:
    """A share of a whole."""
    return f"{100 * part / whole:.0f} %" if whole else "-"


def counts(by_state: dict[str, int]) -> str:
    """Machines by state in words."""
    return ", ".join(f"{count} {state}" for state, count in sorted(by_state.items()) if count) or "none"


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)
