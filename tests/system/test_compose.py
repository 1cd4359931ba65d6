"""deploy/compose on a Docker engine: the main job inside, down and up, workloads killed as the owner returns, gone."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


def test_compose_does_the_main_job_keeps_its_data_and_survives_killed_workloads(
    installation: Installation,
) -> None:
    comes_up(installation)
    everything_is_shut_in(installation)
    machines = installation.job("lend")[-1].split()
    assert len(machines) == 2

    installation.down()
    assert not installation.containers()
    assert installation.left(), "data are kept"
    comes_up(installation)

    the_owner_returns_while_workloads_are_killed(installation, machines)

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


def the_owner_returns_while_workloads_are_killed(installation: Installation, machines: list[str]) -> None:
    """By `tides chaos`, outside of the containers, as on a Docker host: the same machines give way, accounts agree."""
    begun = started_at(installation)
    with ThreadPoolExecutor(1) as pool:
        giving_way = pool.submit(installation.job, "yield", "when-told")
        try:
            told = chaos(
                installation, "--only", "workload", "--mean", "4s", "--minutes", "0.3", "--fraction", "0.5"
            )
        finally:
            installation.tell()
        said = giving_way.result()
    assert machines == said[-3].split(), "the same machines as before"
    assert "limits are at the floor" in said[-1]

    assert told["ok"], told
    assert told["processes"] == ["workload-1", "workload-2"]
    assert told["falls"].keys() == {"killed"}
    assert all(account["is_known"] for account in told["accounts"]), told
    changed = {name for name, at in started_at(installation).items() if begun[name] != at}
    assert changed, "somebody was killed"
    assert all("-workload-" in name for name in changed), changed


def started_at(installation: Installation) -> dict[str, str]:
    """When each container was started, by name."""
    return {told["Name"]: told["State"]["StartedAt"] for told in installation.containers()}


def chaos(installation: Installation, *words: str) -> Any:
    """What it says in JSON; with the first blow the owner is on the way.

    The stores are not on the machine's ports: they are reached by their containers' own.
    """
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
    with subprocess.Popen(
        [*command, "--yes", "--lending", "--json", *words],
        env={**engine.environment, **installation.reach, **stores},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        notes = []
        for line in process.stderr:
            notes.append(line)
            if "killed" in line:
                installation.tell()
        said, _ = process.communicate(timeout=60)
    assert process.returncode in (0, 1), "".join(notes)
    return json.loads(said)
