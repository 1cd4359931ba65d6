"""`tides boinc project`: it serves until it is told to stop, alone in its folder, and names what is wrong."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Type
from tools.parts.slots import free_port

pytestmark = pytest.mark.timeout(120)


def test_it_serves_until_told_to_stop_and_nobody_else_has_its_folder(tides: Type, tmp_path: Path) -> None:
    data, listen = tmp_path / "project", f"127.0.0.1:{free_port()}"
    words = ("boinc", "project", "--data", str(data), "--listen", listen)
    argv = [sys.executable, "-m", "services.cli", *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"project Demo: http://{listen}/demo/\n"
            with urllib.request.urlopen(f"http://{listen}/demo/", timeout=10) as page:
                assert f"<scheduler>http://{listen}/demo/cgi</scheduler>" in page.read().decode()
            assert "another process" in tides(*words).err
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert data.stat().st_mode & 0o077 == 0
    other = tides(*words, "--url", "http://other.example/demo/")
    assert (other.code, other.out) == (1, "")
    assert "never changes" in other.err


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("--listen", "8090"), "--listen"),
        (("--listen", "127.0.0.1:99999"), "--listen"),
        (("--listen", "0.0.0.0:8090"), "--url"),
        (("--url", "http://localhost:8090/demo/"), "--url"),
        (("--url", "http://p.example/"), "--url"),
        (("--url", "ftp://p.example/demo/"), "--url"),
        (("--data", "/proc/nowhere"), "--data"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_the_option(
    tides: Type, tmp_path: Path, words: tuple[str, ...], field: str
) -> None:
    said = tides("boinc", "project", "--data", str(tmp_path), *words)
    assert (said.code, said.out) == (1, "")
    assert re.fullmatch(rf"tides: {field}: [^\n]+\n", said.err), said.err
    assert not os.listdir(tmp_path)
