"""Who asks: a token from the environment, a file, or this user's own installation; never from the arguments."""

import stat
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from libs.common.settings import InvalidSettings
from services.cli import app
from services.cli.access import find_target
from services.cli.client import Failed
from services.cli.keep import FILE, keep


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TIDES_URL", "TIDES_TOKEN", "TIDES_TOKEN_FILE", "TIDES_URL_IDENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TIDES_DATA_DIR", str(tmp_path))


def test_the_installation_s_own_token_is_used_on_this_machine(tmp_path: Path) -> None:
    kept = keep(tmp_path)

    assert find_target(None).token.get_secret_value() == kept.admin_token


def test_the_installation_s_own_token_never_goes_to_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path)
    monkeypatch.setenv("TIDES_URL", "http://tides.example.org:8080")

    with pytest.raises(Failed, match="no token"):
        find_target(None)


def test_a_token_file_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDES_TOKEN", "tides_a")
    (tmp_path / "token").write_text("tides_b\n")

    assert find_target(tmp_path / "token").token.get_secret_value() == "tides_b"


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="--token-file: No such file"):
        find_target(tmp_path / "token")


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://"])
def test_an_address_that_is_none_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDES_URL", url)
    monkeypatch.setenv("TIDES_TOKEN", "tides_a")

    with pytest.raises(InvalidSettings, match="TIDES_URL"):
        find_target(None)


def test_what_an_installation_keeps_is_its_owner_s_alone_and_stays(tmp_path: Path) -> None:
    first, second = keep(tmp_path), keep(tmp_path)

    assert first == second
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_a_damaged_installation_is_named_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")

    with pytest.raises(InvalidSettings, match="damaged"):
        keep(tmp_path)

    assert (tmp_path / FILE).read_text() == "{"


def commands(command: Any, path: str = "tides") -> dict[str, Any]:
    found = {path: command}
    for name, child in getattr(command, "commands", {}).items():
        found |= commands(child, f"{path} {name}")
    return found


EVERY = commands(get_command(app))


def test_every_room_of_the_command_line_is_walked() -> None:
    assert {"tides run", "tides resource add", "tides token revoke", "tides dead retry"} <= EVERY.keys()


@pytest.mark.parametrize("path", EVERY)
def test_no_command_takes_a_secret_as_an_argument(path: str) -> None:
    secret = ("password", "secret", "authenticator", "token")
    for parameter in EVERY[path].params:
        if any(word in (parameter.name or "") for word in secret):
            harmless = parameter.name in ("token_id", "token_file")
            assert harmless or getattr(parameter, "is_flag", False), parameter.name


@pytest.mark.parametrize("path", EVERY)
def test_every_command_says_what_it_is_for(path: str) -> None:
    assert EVERY[path].help, path
