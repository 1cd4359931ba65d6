"""The unit is valid and shut in, and the installer can be run again."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from libs.common.runner import STOP_WITHIN_S
from libs.common.settings import Settings, variable_of
from services.cli.run import SERVICES
from tools.parts import debian

SYSTEMD = Path(__file__).parents[2] / "deploy" / "systemd"
MOST_EXPOSED = 1.5
"""Of 10, as `systemd-analyze security` counts."""


@pytest.fixture(scope="module")
def analyze() -> str:
    found = shutil.which("systemd-analyze") or (
        debian.install(("systemd",)) and shutil.which("systemd-analyze")
    )
    assert found, "systemd-analyze is missing (Debian: apt-get install systemd)"
    return str(found)


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units, with a program that is there on this machine."""
    folder = tmp_path_factory.mktemp("units")
    shutil.copytree(SYSTEMD, folder, dirs_exist_ok=True)
    unit = folder / "tides@.service"
    unit.write_text(unit.read_text().replace("/opt/tides/bin/tides", "/bin/true"))
    return folder


def test_units_are_valid_and_shut_in(analyze: str, units: Path) -> None:
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"}
    for name in ("identity", "monitor"):
        instance = units / f"tides@{name}.service"
        instance.symlink_to("tides@.service")
        for command in (
            ("verify", "--man=no"),
            ("security", "--offline=yes", f"--threshold={10 * MOST_EXPOSED:.0f}"),
        ):
            done = subprocess.run(
                [analyze, *command, str(instance)],
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stdout[-500:] + done.stderr
            assert f"tides@{name}" not in done.stderr, done.stderr


def test_a_stop_has_the_time_that_it_takes_and_every_variable_is_a_setting() -> None:
    texts = {path.name: path.read_text() for path in SYSTEMD.rglob("*") if path.is_file()}
    unit = texts["tides@.service"]
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.M)[0]) > STOP_WITHIN_S
    known = {variable_of(name) for name in Settings.model_fields}
    named = set(re.findall(r"TIDES_[A-Z_]+[A-Z]", unit + texts["keys.conf"] + texts["tides.env"]))
    assert {name.removesuffix("_FILE") for name in named} <= known
    assert re.search(r"^User=tides-%i$", unit, re.M), "one that all instances share may signal all of them"
    filters = re.findall(r"^SystemCallFilter=(.*)$", unit, re.M)
    assert filters.index("nice setpriority") > filters.index("~@privileged @resources"), "backtests step back"
    assert set(re.findall(r'^known="(.*)"$', texts["install"], re.M)[0].split()) == set(SERVICES)


def install(root: Path, *services: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ROOT": str(root), "SKIP_PROGRAMS": "1"}
    return subprocess.run(
        ["sh", str(SYSTEMD / "install"), *services],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_installer_names_what_is_missing_and_changes_no_setting_that_is_there(tmp_path: Path) -> None:
    assert "no service named 'harbour'" in install(tmp_path, "harbour").stderr
    refused = install(tmp_path, "monitor")
    release = re.findall(rf"{tmp_path}(/opt/tides-\d+) is not there", refused.stderr)
    assert (refused.returncode, len(release)) == (1, 1), refused.stderr
    programs = tmp_path / release[0].lstrip("/")
    programs.mkdir(parents=True)
    (programs / "whole").touch()

    asked = install(tmp_path, "monitor", "identity")
    assert asked.returncode == 2
    assert "lacks: database_url bus_url sealing_keys signing_key bootstrap_admin_token" in asked.stderr
    assert "TIDES_INSTALLATION_ID (a UUID) for monitor; TIDES_VERIFY_KEYS for monitor" in asked.stderr
    secrets, settings = tmp_path / "etc/tides/secrets", tmp_path / "etc/tides/tides.env"
    assert secrets.stat().st_mode & 0o777 == 0o700
    for name in ("database_url", "bus_url", "sealing_keys"):
        (secrets / name).write_text("x")
    keys = "TIDES_VERIFY_KEYS='{\"keys\": []}'"
    for wrong in ("", "#TIDES_INSTALLATION_ID=", "TIDES_INSTALLATION_ID=\n", "TIDES_INSTALLATION_ID=lab\n"):
        settings.write_text(f"{wrong}\n{keys}\n")
        asked = install(tmp_path, "monitor")
        assert asked.returncode == 2, wrong
        assert "lacks: TIDES_INSTALLATION_ID (a UUID) for monitor; give" in asked.stderr
    whole = f"TIDES_PORT=9090\n{keys}\nTIDES_INSTALLATION_ID='{uuid4()}'"
    settings.write_text(whole)  # its last line has no end
    asked = install(tmp_path, "monitor", "workload")
    assert asked.returncode == 2
    assert (
        "would listen at one place: workload and monitor at 127.0.0.1:9090; put a TIDES_PORT" in asked.stderr
    )
    (tmp_path / "etc/tides/workload.env").write_text("TIDES_PORT=9091\n")
    assert not (tmp_path / "opt/tides").is_symlink(), "what starts meanwhile is still the version before"

    for _ in range(2):
        done = install(tmp_path, "monitor", "workload")
        assert (done.returncode, done.stderr) == (0, "")
    assert settings.read_text() == whole
    assert os.readlink(tmp_path / "opt/tides") == release[0]
    unit = tmp_path / "etc/systemd/system/tides@.service"
    assert unit.read_text() == (SYSTEMD / "tides@.service").read_text()

    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir()
    (wants / "tides@workload.service").symlink_to("../tides@.service")
    (tmp_path / "etc/tides/monitor.env").write_text("TIDES_PORT=9091\n")
    assert "workload and monitor at 127.0.0.1:9091;" in install(tmp_path, "monitor").stderr, (
        "it runs here, too"
    )


def test_the_command_on_a_vm_has_what_its_services_have_and_overrules_nobody(tmp_path: Path) -> None:
    etc, wants = tmp_path / "etc/tides", tmp_path / "etc/systemd/system/multi-user.target.wants"
    program = tmp_path / "opt/tides/bin/tides"
    for folder in (etc / "secrets", wants, program.parent):
        folder.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$*"; env\n')
    program.chmod(0o755)
    keys = '{"keys": [{"kid": "it\'s"}]}'
    (etc / "tides.env").write_text(
        f"#TIDES_SITE=x\nTIDES_HOST=0.0.0.0\nTIDES_VERIFY_KEYS='{keys}'\nTIDES_PORT=8080"
    )
    (etc / "workload.env").write_text("TIDES_PORT=8087\n")
    for secret in ("database_url", "bus_url", "sealing_keys", "bootstrap_admin_token"):
        (etc / "secrets" / secret).write_text("hush")
    for name in ("monitor", "workload"):
        (wants / f"tides@{name}.service").symlink_to("../tides@.service")

    given = {"PATH": os.environ["PATH"], "ROOT": str(tmp_path), "TIDES_BUS_URL": "amqp://other/"}
    words = ["sh", str(SYSTEMD / "tides"), "dead", "list"]
    done = subprocess.run(words, env=given, capture_output=True, text=True, timeout=30)
    said, *lines = done.stdout.splitlines()
    assert (said, done.stderr, "hush" in done.stdout) == ("dead list", "", False)
    assert {name: value for name, _, value in (line.partition("=") for line in lines) if "TIDES" in name} == {
        "TIDES_HOST": "0.0.0.0",
        "TIDES_PORT": "8080",
        "TIDES_VERIFY_KEYS": keys,
        "TIDES_DATABASE_URL_FILE": f"{etc}/secrets/database_url",
        "TIDES_SEALING_KEYS_FILE": f"{etc}/secrets/sealing_keys",
        "TIDES_TOKEN_FILE": f"{etc}/secrets/bootstrap_admin_token",
        "TIDES_BUS_URL": "amqp://other/",
        "TIDES_URL_MONITOR": "http://127.0.0.1:8080",
        "TIDES_URL_WORKLOAD": "http://127.0.0.1:8087",
    }


async def test_ready_is_who_says_so(tmp_path: Path) -> None:
    state = {"status": 503}

    async def answer(_: web.Request) -> web.Response:
        seen, state["status"] = state["status"], 200
        return web.Response(status=seen)

    app = web.Application()
    app.router.add_get("/readyz", answer)
    async with TestServer(app) as server:
        for place, seconds, code in ((f"127.0.0.1:{server.port}", "30", 0), ("127.0.0.1:1", "0.1", 1)):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", str(SYSTEMD / "ready.py"), place, seconds
            )
            assert await process.wait() == code, place
    assert state["status"] == 200, "who is not ready yet is asked again"


def test_of_older_versions_the_last_stays_and_what_something_runs_from(tmp_path: Path) -> None:
    release = re.findall(rf"{tmp_path}(/opt/tides-\d+) is not there", install(tmp_path, "monitor").stderr)[0]
    for name in (release, "/opt/tides-1", "/opt/tides-2", "/opt/tides-3"):
        (tmp_path / name.lstrip("/") / "bin").mkdir(parents=True)
        (tmp_path / name.lstrip("/") / "whole").touch()
    (tmp_path / "opt/tides").symlink_to("/opt/tides-2")
    for name in ("database_url", "bus_url", "sealing_keys"):
        secret = tmp_path / "etc/tides/secrets" / name
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text("x")
    settings = tmp_path / "etc/tides/tides.env"
    settings.write_text(f"TIDES_INSTALLATION_ID={uuid4()}\nTIDES_VERIFY_KEYS={{}}\n")
    running = tmp_path / "opt/tides-3/bin/tides"
    shutil.copy("/bin/sleep", running)
    with subprocess.Popen([running, "60"]) as process:
        done = install(tmp_path, "monitor")
        process.kill()
    assert (done.returncode, done.stderr) == (0, "")
    kept = {f"/opt/{path.name}" for path in (tmp_path / "opt").glob("tides-*")}
    assert kept == {release, "/opt/tides-2", "/opt/tides-3"}
