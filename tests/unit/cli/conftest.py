"""A house, a way to type commands into it."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services import cli
from tests.unit.cli.house import TOKEN, House, serving


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


Type = Callable[..., Said]


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[House]:
    """A house that the environment names, with a token for it."""
    with serving(House()) as served:
        for service in ("IDENTITY", "REGISTRY", "POLICY", "WORKLOAD"):
            monkeypatch.delenv(f"TIDES_URL_{service}", raising=False)
        monkeypatch.delenv("TIDES_TOKEN_FILE", raising=False)
        monkeypatch.setenv("TIDES_URL", served.url)
        monkeypatch.setenv("TIDES_TOKEN", TOKEN)
        monkeypatch.setenv("TIDES_DATA_DIR", str(tmp_path))
        yield served


@pytest.fixture
def tides(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    """Type a command, as `tides` reads it."""

    def run(*words: str, stdin: str = "") -> Said:
        monkeypatch.setattr(sys, "argv", ["tides", *words])
        monkeypatch.setattr(sys, "stdin", _Pipe(stdin))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return Said(int(ended.value.code or 0), told.out, told.err)

    return run


class _Pipe:
    """Standard input that is no terminal."""

    def __init__(self, text: str) -> None:
        self._text = text

    def isatty(self) -> bool:
        return False

    def read(self, size: int = -1) -> str:
        said, self._text = self._text, ""
        return said if size < 0 else said[:size]

    def readline(self) -> str:
        line, mark, self._text = self._text.partition("\n")
        return line + mark
