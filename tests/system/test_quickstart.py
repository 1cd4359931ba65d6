"""The quickstart as a newcomer types it, command by command, in one shell; what must be refused is refused."""

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tools.parts.slots import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "quickstart.md"


def blocks() -> list[tuple[str, str]]:
    """What the page says to type, with the word behind `sh`."""
    return re.findall(
        r"^```sh ?(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def script(most: int | None = None) -> str:
    """One bash script of it: ends at the first command that fails, or that is not refused where it must be."""
    lines = ["set -euo pipefail"]
    for kind, text in blocks()[:most]:
        if kind == "refused":
            shown = shlex.quote(f"was not refused: {text.strip()}")
            lines.append(f"if {text.strip()}; then echo {shown}; exit 9; else echo refused; fi")
        elif kind != "install":
            lines.append(text)
    return "\n".join(lines)


def test_the_quickstart_does_what_it_says(tmp_path: Path) -> None:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDES_")}
    environment |= {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "EXAMPLES": str(ROOT / "docs" / "examples"),
        "TIDES_PORT": str(port),
        "TIDES_URL": f"http://127.0.0.1:{port}",
        "COLUMNS": "160",
    }
    typed = subprocess.Popen(
        ["bash", "-c", script()],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = typed.communicate(timeout=1170)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(typed.pid, signal.SIGKILL)  # the platform too, where a command failed
    assert typed.returncode == 0, said
    kinds = [kind for kind, _ in blocks()]
    assert kinds.count("install") == 1
    assert said.count("refused\n") == kinds.count("refused") > 0, said
    assert "machines: 2 running; 2 wanted" in said
    assert "owner CPU 95 %" in said
    assert not list(tmp_path.glob("trial/data/postgres/**/postmaster.pid")), "everything has ended"


def test_a_platform_that_dies_ends_the_waiting_with_what_it_said_last(tmp_path: Path) -> None:
    fake = tmp_path / "tides"
    fake.write_text('#!/bin/sh\n[ "$1" = run ] && sleep 0.5 && echo "tides: the disk is full" >&2\nexit 1\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ["bash", "-c", script(2)]
    typed = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert typed.returncode == 1, typed
    assert typed.stdout == "tides: the disk is full\n"
