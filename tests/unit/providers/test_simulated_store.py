"""Addresses, logins and files of simulated clouds: what several processes, restarts and kills may rely on."""

import json
import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from libs.common.clock import WallClock
from libs.providers.base import Cause, Power, Rejected, Unavailable
from libs.providers.simulated import SimulatedSettings, attach_cloud, create_cloud, driver
from libs.providers.simulated.driver import SimulatedDriver
from tests.contract.providers.simulated_target import PASSWORD, SimulatedTarget
from tests.contract.providers.target import bring, deploy, seen

ROOT = Path(__file__).parents[3]
WRITER = """
import sys
from libs.providers.simulated import attach_cloud
cloud = attach_cloud(sys.argv[1])
print("ready", flush=True)
for number in range(int(sys.argv[3])):
    cloud.control.add_foreign(f"{sys.argv[2]}-{number}", "domain-c1")
"""


def start_writer(url: str, prefix: str, count: int) -> subprocess.Popen[str]:
    """Another process that adds machines to the cloud, one at a time; it is at work when this returns."""
    command = [sys.executable, "-c", WRITER, url, prefix, str(count)]
    writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("sim://Demo", "sim://demo"),
        (" sim://demo/ ", "sim://demo"),
        ("SIM:///srv/./a/../b//cloud.json", "sim:///srv/b/cloud.json"),
        ("sim:////srv/cloud.json", "sim:///srv/cloud.json"),
    ],
)
def test_one_cloud_has_one_address(url: str, canonical: str) -> None:
    assert driver.identify(url, SimulatedSettings()) == canonical


@pytest.mark.parametrize(
    "url",
    ["", "demo", "https://demo", "sim://", "sim://a b", "sim://u:p@demo", "sim://demo/x", "sim://demo?x=1",
     "sim:///etc/passwd", "sim://demo#x", "sim:cloud.json", "sim://demo:99"],
)  # fmt: skip
async def test_other_addresses_are_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match="sim://<name>"):
        driver.identify(url, SimulatedSettings())


async def test_a_login_needs_the_password_of_the_creation(target: SimulatedTarget) -> None:
    for wrong in ("", "Correct horse", PASSWORD + " "):
        with pytest.raises(Rejected) as refusal:
            await target.open(wrong)
        assert refusal.value.cause is Cause.AUTH
    target.cloud.control.set_password("another one")
    with pytest.raises(Rejected):
        await target.open(PASSWORD)
    await target.open("another one")
    await target.provider.machines()


async def test_the_first_login_creates_an_absent_cloud(target: SimulatedTarget) -> None:
    target.url = "sim://fresh"
    with pytest.raises(Rejected):
        await target.open("")
    with pytest.raises(LookupError):
        target.driver.attach_cloud(target.url, target.clock)
    first = await target.log_in("mine", {"seed": 3, "interval_s": 60})
    with pytest.raises(Rejected) as refusal:
        await target.open("yours")
    assert refusal.value.cause is Cause.AUTH
    assert (await first.validate()).warnings == ()
    assert target.driver.attach_cloud(target.url, target.clock).state().settings.interval_s == 60
    plain = await target.log_in("mine")
    assert (await plain.validate()).warnings == ()
    other = await target.log_in("mine", {"seed": 4})
    assert len((await other.validate()).warnings) == 1


async def test_a_secret_sealed_for_another_address_is_refused(target: SimulatedTarget) -> None:
    sealed = target.vault.seal(PASSWORD, b"elsewhere")
    connection = replace(target.connection(PASSWORD), sealed_secret=sealed)
    with pytest.raises(Rejected) as refusal:
        await target.driver.open(connection, target.vault, target.clock)
    assert refusal.value.cause is Cause.AUTH


async def test_settings_that_do_not_exist_are_refused_without_their_value(target: SimulatedTarget) -> None:
    with pytest.raises(Rejected) as refusal:
        await target.log_in(settings={"password": "hunter2"})
    assert refusal.value.cause is Cause.INVALID
    assert "password" in refusal.value.detail
    assert "hunter2" not in refusal.value.detail


def test_a_cloud_is_created_once() -> None:
    fresh = SimulatedDriver()
    with pytest.raises(ValueError, match="password"):
        fresh.create_cloud("sim://once", "", SimulatedSettings(), WallClock())
    fresh.create_cloud("sim://once", "pw", SimulatedSettings(), WallClock())
    with pytest.raises(ValueError, match="exists"):
        fresh.create_cloud("sim://once", "pw", SimulatedSettings(), WallClock())
    fresh.forget_cloud("sim://once")
    fresh.create_cloud("sim://once", "pw", SimulatedSettings(), WallClock())


async def test_a_file_outlives_the_process_and_names_no_password(tmp_path: Path) -> None:
    path = tmp_path / "cloud.json"
    before = SimulatedTarget(f"sim://{path}")
    before.provider = await before.open(PASSWORD)
    spec = before.make_spec()
    await deploy(before, spec)
    await bring(before, spec.name, Power.ON)
    facts, sample = await before.provider.validate(), await before.provider.sample(None)
    assert PASSWORD not in path.read_text()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

    before.driver = SimulatedDriver()
    before.provider = await before.open(PASSWORD)
    machine = await seen(before, spec.name)
    assert machine is not None
    assert machine.power is Power.ON
    assert await before.provider.validate() == facts
    assert await before.provider.sample(None) == sample


async def test_two_sessions_on_one_file_see_each_other(tmp_path: Path) -> None:
    target = SimulatedTarget(f"sim://{tmp_path}/cloud.json")
    target.provider = await target.open(PASSWORD)
    target.driver = SimulatedDriver()
    other = await target.open(PASSWORD)
    for _ in range(30):
        spec = target.make_spec()
        await target.provider.create(spec)
        assert spec.name in [machine.name for machine in await other.machines()]
        await other.delete(spec.name)
        assert await target.provider.machines() == []


async def test_looking_does_not_write(tmp_path: Path) -> None:
    target = SimulatedTarget(f"sim://{tmp_path}/cloud.json")
    target.provider = await target.open(PASSWORD)
    spec = target.make_spec()
    await deploy(target, spec)
    await target.provider.set_limits(target.cluster, 1000.0, {spec.name: 700.0})
    before = os.stat(tmp_path / "cloud.json")
    await target.provider.sample(None)
    await target.provider.machines()
    await target.provider.validate()
    await target.provider.create(spec)
    await target.provider.set_limits(target.cluster, 1000.0, {spec.name: 700.0})
    assert os.stat(tmp_path / "cloud.json").st_ino == before.st_ino


@pytest.mark.parametrize("content", ["", "{", "[]", '{"machines": []}'])
async def test_a_file_that_is_no_cloud_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "accounts.json"
    path.write_text(content)
    with pytest.raises(Rejected) as refusal:
        create_cloud(f"sim://{path}", "pw")
    assert refusal.value.cause is Cause.INVALID
    assert path.read_text() == content


async def test_registering_a_file_that_is_not_there_makes_none(tmp_path: Path) -> None:
    target = SimulatedTarget(f"sim://{tmp_path}/cloud.json")
    target.url = f"sim://{tmp_path}/other.json"
    with pytest.raises(Rejected, match="tides demo") as refusal:
        await target.open(PASSWORD)
    assert refusal.value.cause is Cause.INVALID
    assert [path.name for path in tmp_path.glob("other*")] == []


async def test_a_file_that_went_is_unavailable_and_not_empty(tmp_path: Path) -> None:
    target = SimulatedTarget(f"sim://{tmp_path}/cloud.json")
    target.provider = await target.open(PASSWORD)
    os.unlink(tmp_path / "cloud.json")
    with pytest.raises(Unavailable):
        await target.provider.machines()
    with pytest.raises(Unavailable):
        await target.provider.create(target.make_spec())


def test_processes_share_a_file_and_lose_nothing(tmp_path: Path) -> None:
    url = f"sim://{tmp_path}/cloud.json"
    cloud = create_cloud(url, "pw")
    writers = [start_writer(url, f"writer{number}", 40) for number in range(3)]
    for number in range(40):
        cloud.control.add_foreign(f"parent-{number}", "domain-c1")
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    assert len(cloud.truth().foreign) == 160


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    url = f"sim://{tmp_path}/cloud.json"
    create_cloud(url, "pw")
    for attempt in range(4):
        with start_writer(url, f"victim{attempt}", 1_000_000) as writer:
            before = len(attach_cloud(url).truth().foreign)
            while len(attach_cloud(url).truth().foreign) <= before + 5 * attempt:
                assert writer.poll() is None
            os.kill(writer.pid, signal.SIGKILL)
        json.loads((tmp_path / "cloud.json").read_text())
        cloud = attach_cloud(url)
        cloud.control.add_foreign(f"survivor{attempt}", "domain-c1")
        foreign = cloud.truth().foreign
        assert f"survivor{attempt}" in foreign
        mine = [name for name in foreign if name.startswith(f"victim{attempt}-")]
        assert mine == [f"victim{attempt}-{number}" for number in range(len(mine))]
