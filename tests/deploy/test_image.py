"""The image's recipe and the Compose file: linted, and what they promise about users, secrets and disks."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from libs.common.settings import Settings, load_settings, variable_of
from services.cli.run import SERVICES

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"
BIN = Path(sys.executable).parent


def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([*map(str, words)], env=env, capture_output=True, text=True, timeout=60)


def test_the_recipe_is_linted() -> None:
    done = run(BIN / "hadolint", "--failure-threshold", "style", ROOT / "Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """The Compose file as the engine would get it."""
    file = COMPOSE / "compose.yaml"
    quiet = run(BIN / "docker-compose", "-f", file, "--profile", "*", "config", "-q")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    shown = run(BIN / "docker-compose", "-f", file, "--profile", "*", "config", "--format", "json")
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


def test_every_container_is_shut_in(composed: dict[str, Any]) -> None:
    assert set(composed["services"]) == {*SERVICES, "postgres", "rabbitmq", "tides", "demo-boinc"}
    for name, service in composed["services"].items():
        assert service["user"] not in ("", "0", "root"), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert bool(service.get("secrets")) == (name != "demo-boinc"), name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        if name in SERVICES:
            gates = {part: needs["condition"] for part, needs in service["depends_on"].items()}
            assert gates == dict.fromkeys(("postgres", "rabbitmq"), "service_healthy"), name
    for name in ("postgres", "rabbitmq"):
        assert composed["services"][name]["healthcheck"]["test"], name
        assert [volume["type"] for volume in composed["services"][name]["volumes"]] == ["volume"], name
    demo = composed["services"]["demo-boinc"]
    assert (demo["profiles"], demo.get("environment") or {}) == (["demo-boinc"], {})
    assert [volume["source"] for volume in demo["volumes"]] == ["demo-boinc"]
    for name in ("monitor", "workload"):
        assert "ports" not in composed["services"][name], f"{name} could not be scaled"


def test_secrets_are_files_and_only_identity_signs(composed: dict[str, Any]) -> None:
    known = {variable_of(name) for name in Settings.model_fields}
    for name, service in composed["services"].items():
        told = {
            key: value
            for key, value in (service.get("environment") or {}).items()
            if key.startswith("TIDES_")
        }
        files = {key: value for key, value in told.items() if value.startswith("/run/secrets/")}
        given = {secret["source"] for secret in service.get("secrets") or []}
        assert {value.removeprefix("/run/secrets/") for value in files.values()} <= given, name
        urls = {key for key in told if key.startswith("TIDES_URL") or key == "TIDES_TOKEN_FILE"}
        assert {key.removesuffix("_FILE") for key in told.keys() - urls} <= known, name
        assert ("signing_key" in given) == (name == "identity"), name


def test_made_secrets_are_whole_settings_and_are_never_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "secrets"
    made = run("sh", COMPOSE / "make-secrets", folder, TIDES=str(BIN / "tides"))
    assert made.returncode == 0, made.stderr
    assert folder.stat().st_mode & 0o777 == 0o700
    named = set(re.findall(r"TIDES_SECRETS:-./secrets}/([a-z_.]+)", (COMPOSE / "compose.yaml").read_text()))
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert texts.keys() == named

    for name in ("database_url", "bus_url", "installation_id", "sealing_keys", "signing_key", "verify_keys"):
        monkeypatch.setenv(f"TIDES_{name.upper()}_FILE", str(folder / name))
    settings = load_settings()
    assert settings.vault().key_ids == ("k1",)
    assert json.loads(settings.verify_keys)["keys"]
    assert texts["postgres_password"].strip() in settings.database_dsn
    assert texts["rabbitmq.conf"].split()[-1] in settings.bus_dsn

    again = run("sh", COMPOSE / "make-secrets", folder, TIDES="false")
    assert (again.returncode, {path.name: path.read_text() for path in folder.iterdir()}) == (0, texts)
