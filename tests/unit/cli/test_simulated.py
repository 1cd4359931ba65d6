"""`tides simulated`: a cloud in a file, its owner's load, and refusals of one line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from libs.providers.simulated import attach_cloud
from services.cli import app
from services.cli.client import Failed


def run(*words: str, typed: str = "secret\n") -> str:
    done = CliRunner().invoke(app, ["simulated", *words], input=typed)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_a_cloud_is_made_and_its_owner_uses_it(tmp_path: Path) -> None:
    file = str(tmp_path / "cloud.json")
    url = run("make", file, "--hosts", "3", "--password-stdin").strip()
    assert url == f"sim://{file}"
    run("load", file, "0.75")
    hosts = attach_cloud(url).truth().hosts
    assert [round(host.owner_mhz / host.capacity_mhz, 2) for host in hosts] == [0.75, 0.75, 0.75]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("make", "there.json", "--password-stdin"), "exists already"),
        (("make", "new.json", "--password-stdin", "--hosts", "201"), "^hosts: Input should be less than"),
        (("load", "nowhere.json", "0.5"), "nowhere.json does not exist"),
        (("load", "there.json", "1.5"), "a fraction from 0 to 1"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run("make", "there.json", "--password-stdin")
    with pytest.raises(Failed, match=said):
        run(*words)
    assert not Path("new.json").exists()
