"""How long files and functions may be, and how many parameters: python -m tools.budgets."""

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("services", "libs", "tools", "tests")
FILE_LINES, FUNCTION_LINES, PARAMETERS = 400, 50, 6


@dataclass(frozen=True)
class Excess:
    """Something that is bigger than it should be; `place` is `path` or `path::function`."""

    place: str
    measure: str
    found: int
    limit: int

    def __str__(self) -> str:
        return f"{self.place}: {self.found} {self.measure}, at most {self.limit}"


def measure(path: str, source: str) -> Iterator[Excess]:
    """All excesses of one file."""
    lines = len(source.splitlines())
    if lines > FILE_LINES:
        yield Excess(path, "lines", lines, FILE_LINES)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _measure_function(f"{path}::{node.name}", node)


def judge(found: Iterable[Excess], allowed: Mapping[str, str]) -> list[str]:
    """What to complain about: excesses that no pattern allows, and patterns that allow nothing any more."""
    complaints, used = [], set()
    for excess in found:
        matching = {pattern for pattern in allowed if fnmatch(excess.place, pattern)}
        used |= matching
        if not matching:
            complaints.append(str(excess))
    stale = [
        f"tools/budgets.toml: {pattern} allows nothing any more" for pattern in allowed if pattern not in used
    ]
    return complaints + stale


def main() -> int:
    """Print the complaints; non-zero when there are any."""
    allowed = tomllib.loads((ROOT / "tools" / "budgets.toml").read_text())["allowed"]
    found: list[Excess] = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            found += measure(path.relative_to(ROOT).as_posix(), path.read_text())
    complaints = judge(found, allowed)
    print("\n".join(complaints) or "within budget")
    return 1 if complaints else 0


def _measure_function(place: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Excess]:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if lines > FUNCTION_LINES:
        yield Excess(place, "lines", lines, FUNCTION_LINES)
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    parameters = len([name for name in names if name not in {"self", "cls"}])
    if parameters > PARAMETERS:
        yield Excess(place, "parameters", parameters, PARAMETERS)


if __name__ == "__main__":
    sys.exit(main())
