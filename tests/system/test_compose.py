"""deploy/compose on a Docker engine: the main job inside, a workload killed, down and up, the owner's return, gone."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.parts import PartMissing
from tools.parts.compose import ALONE, BIN, SCALED, Installation
from tools.parts.compose.engine import DockerEngine
from tools.parts.compose.images import build_all

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(1500),  # without a cache all images are made first
    pytest.mark.xdist_group("compose"),
]

HEALTHY = {"postgres", "rabbitmq", *ALONE, *SCALED}


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """Of this tree's image; nothing runs yet. In the end nothing is left, whatever happened."""
    engine = DockerEngine()
    found = None
    try:
        engine.start()
        found = Installation(engine, build_all(engine, "tides-lab"), tmp_path)
        yield found
    except PartMissing as missing:
        pytest.fail(str(missing), pytrace=False)
    finally:
        if found is not None and not engine.is_private:
            found.down("-v")
        engine.close()


def test_compose_does_the_main_job_survives_a_killed_workload_and_keeps_its_data(
    installation: Installation,
) -> None:
    comes_up(installation)
    everything_is_shut_in(installation)
    machines = installation.job("lend")[-1].split()
    assert len(machines) == 2

    a_workload_is_killed_and_all_accounts_agree(installation)

    installation.down()
    assert not installation.containers()
    assert installation.left(), "data are kept"
    comes_up(installation)
    said = installation.job("yield")
    assert machines == said[-2].split(), "the same machines"
    assert "limits are at the floor" in said[-1]

    installation.down("-v")
    assert installation.left() == []


def comes_up(installation: Installation) -> None:
    """Every container is healthy, two of them a workload."""
    health = installation.up()
    assert set(health.values()) == {"healthy"}
    services = [name.removeprefix(f"{installation.project}-").rsplit("-", 1)[0] for name in health]
    assert sorted(services) == sorted([*HEALTHY, "workload"])


def everything_is_shut_in(installation: Installation) -> None:
    """Nobody is root, nobody writes to its root or gains a right, and no environment holds a secret."""
    secrets = [
        installation.secret(name)
        for name in ("database_url", "sealing_keys", "postgres_password", "bootstrap_admin_token")
    ]
    for told in installation.containers():
        asked = "id -u; touch /probe 2>&1; grep -E 'CapEff|NoNewPrivs' /proc/1/status"
        user, refused, *limits = installation.engine.run("exec", told["Id"], "sh", "-c", asked).splitlines()
        assert int(user) != 0, told["Name"]
        assert "Read-only file system" in refused, told["Name"]
        assert [line.split()[1] for line in limits] == ["0" * 16, "1"], told["Name"]
        shown = json.dumps(told)
        assert not [secret for secret in secrets if secret in shown], told["Name"]


def a_workload_is_killed_and_all_accounts_agree(installation: Installation) -> None:
    """By `tides chaos`, outside of the containers, as an operator does it on the Docker host."""
    begun = started_at(installation)
    told = chaos(installation, "--only", "workload", "--mean", "3s", "--minutes", "0.2", "--fraction", "0.5")
    assert told["ok"], told
    assert [name for name in told["processes"]] == ["workload-1", "workload-2"]
    assert sum(count for word, count in told["falls"].items() if "kill" in word) >= 1, told
    agree = {account["name"]: account["is_known"] for account in told["accounts"]}
    assert all(agree.values()), told
    changed = {name for name, at in started_at(installation).items() if begun[name] != at}
    assert changed
    assert all("-workload-" in name for name in changed), changed


def started_at(installation: Installation) -> dict[str, str]:
    """When each container was started, by name."""
    return {told["Name"]: told["State"]["StartedAt"] for told in installation.containers()}


def chaos(installation: Installation, *words: str) -> Any:
    """What it says in JSON. The stores are not on the machine's ports: they are reached by their containers' own."""
    engine = installation.engine
    addresses = {
        told["Config"]["Labels"]["com.docker.compose.service"]: next(
            iter(told["NetworkSettings"]["Networks"].values())
        )["IPAddress"]
        for told in installation.containers()
    }
    stores = {
        "TIDES_DATABASE_URL": installation.secret("database_url").replace(
            "@postgres:", f"@{addresses['postgres']}:"
        ),
        "TIDES_BUS_URL": installation.secret("bus_url").replace("@rabbitmq:", f"@{addresses['rabbitmq']}:"),
        "TIDES_SEALING_KEYS": installation.secret("sealing_keys"),
    }
    command = [str(BIN / "tides"), "chaos", "--compose", installation.project, "--force", "1", "--seed", "7"]
    done = subprocess.run(
        [*command, "--yes", "--lending", "--json", *words],
        env={**engine.environment, **installation.reach, **stores},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout, done.stderr
    return json.loads(done.stdout)
