"""What a machine is given to come to work: by files, or with Tides as account manager and an agent that reports."""

import json
from uuid import uuid4

import pytest
import yaml

from libs.boinc.signing import SigningKey
from libs.common.contracts.action import GuestsThrottled, LimitsFailed, MachineDraining, MachineRequested
from libs.common.contracts.resource import ClusterFacts, HostFacts, InventoryChanged
from libs.common.contracts.supply import MachineDrained
from libs.common.settings import InvalidSettings, Settings
from libs.providers.base import Capability
from services.workload.domain.limits import LEAST_CHANGE_PERCENT
from services.workload.settings import guests_of
from tests.service.workload_house import open_house

KEY = SigningKey.generate().public
URL = "https://tides.example/boinc/"


async def test_a_machine_of_an_account_manager_gets_no_project_and_no_key_but_its_own_token(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDES_BOINC_URL", URL)
    monkeypatch.setenv("TIDES_BOINC_SIGNING_KEY", KEY.text)
    async with open_house(database_url) as house:
        await house.lend()
        await house.run(40)

        machines = house.cloud.truth().machines
        assert len(machines) == 2
        documents = [yaml.safe_load(machine.user_data) for machine in machines]
        requested = {str(event.machine_id) for event in house.heard(MachineRequested)}
        opaques = set()
        for document in documents:
            files = {file["path"]: file["content"] for file in document["write_files"]}
            assert "https://boinc.example.org/" not in str(files)
            assert f"<url>{URL}</url>" in files["/etc/tides/boinc/acct_mgr_url.xml"]
            assert KEY.text in files["/etc/tides/boinc/acct_mgr_url.xml"]
            settings = json.loads(files["/etc/tides/agent.json"])
            assert settings["door"] == "https://tides.example/guests/"
            login = files["/etc/tides/boinc/acct_mgr_login.xml"]
            assert settings["token"] in login
            opaques.add(login.partition("<opaque>\n")[2].partition("\n")[0])
        assert opaques == requested
        assert len({document["hostname"] for document in documents}) == 2


async def test_what_the_image_holds_is_not_installed_even_where_an_older_process_took_the_news(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDES_BOINC_URL", URL)
    monkeypatch.setenv("TIDES_BOINC_SIGNING_KEY", KEY.text)
    async with open_house(database_url) as house:
        await house.change_template(components=("boinc", "agent", "a newer word"))
        await house.execute("update template set components = '[]'")
        await house.tell(house.template)
        await house.lend()
        await house.run(40)

        documents = [yaml.safe_load(machine.user_data) for machine in house.cloud.truth().machines]
    assert len(documents) == 2
    for document in documents:
        files = {file["path"]: file["content"] for file in document["write_files"]}
        assert "apt-get" not in files["/usr/local/sbin/tides-setup"]
        assert "/usr/local/sbin/tides-agent" not in files
        assert json.loads(files["/etc/tides/agent.json"])["token"]


async def test_a_drain_says_how_long_it_may_take_and_ends_when_the_guest_is_done(database_url: str) -> None:
    async with open_house(database_url) as house:
        await house.lend()
        await house.run(40)
        machine = (await house.ask("GET", "/v1/machines")).body["items"][0]
        drained = await house.ask("POST", f"/v1/machines/{machine['id']}/drain", {"reason": "test"})
        assert drained.status in (200, 202)
        await house.run(10)
        [event] = house.heard(MachineDraining)
        assert event.grace_s > 0

        await house.run(20)
        known = "select state, reason from machine where id = $1::uuid"
        assert (await house.fetch(known, event.machine_id))[0]["state"] == "draining"
        done = MachineDrained(
            id=uuid4(), at=house.clock.now(), machine_id=event.machine_id, organisation_id=event.organisation_id,
            resource_id=event.resource_id, lost_cpu_s=12.4, tasks=2, took_s=9.0,
        )  # fmt: skip
        await house.tell(done)
        await house.run(30)
        [gone] = await house.fetch(known, event.machine_id)
        assert gone["state"] == "destroyed"
        assert "lost 12 CPU seconds" in gone["reason"]


async def test_where_the_cloud_has_no_limits_guests_are_told_what_they_may_use(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDES_BOINC_URL", URL)
    monkeypatch.setenv("TIDES_BOINC_SIGNING_KEY", KEY.text)
    async with open_house(database_url, without=["limits"]) as house:
        hosts = tuple(
            HostFacts(host, host, cpu_capacity_mhz=20_000.0, memory_capacity_mib=65_536.0, cores=8)
            for host in ("host-1001", "host-1002")
        )
        cluster = ClusterFacts(house.cluster_id, "domain-c1", "lab", hosts)
        about = {"at": house.clock.now(), "revision": 1, "resource_id": house.resource.resource_id}
        await house.change_resource()
        await house.tell(InventoryChanged.model_validate(about | {"clusters": (cluster,)}))
        await house.lend()
        await house.run(60)
        machines = {machine["id"]: machine["host"] for machine in await house.machines()}

        async def told() -> dict[str, float]:
            """What each host's guest was told last."""
            newest: dict[str, float] = {}
            for event in house.heard(GuestsThrottled):
                newest |= {machines[str(one)]: percent for one, percent in event.percent.items()}
            return newest

        assert await told() == {"host-1001": 100.0, "host-1002": 100.0}
        house.cloud.control.set_owner_load("host-1001", 0.6)
        await house.run(40)
        budgets = {host["host"]: host["budget_mhz"] for host in (await house.cluster())["hosts"]}
        assert 0 < budgets["host-1001"] < 10_000  # four processors of 2,500 MHz
        # A rise of a point is not worth telling.
        assert 0 <= budgets["host-1001"] // 100 - (await told())["host-1001"] < LEAST_CHANGE_PERCENT
        assert (await told())["host-1002"] == 100.0
        said = len(house.heard(GuestsThrottled))
        assert set(house.limits()) <= {"applied", "superseded"}
        await house.run(60)
        assert len(house.heard(GuestsThrottled)) == said  # nothing is told twice

        house.cloud.control.gain(Capability.LIMITS)
        await house.begin_anew()
        await house.run(40)
        assert await told() == {"host-1001": 100.0, "host-1002": 100.0}, (
            "the cloud has limits now: guests are free"
        )
        assert min(machine.limit_mhz for machine in house.cloud.truth().machines) < 10_000
        said = len(house.heard(GuestsThrottled))
        await house.run(40)
        assert len(house.heard(GuestsThrottled)) == said


async def test_without_limits_and_without_agents_it_is_said_that_nothing_can_be_done(
    database_url: str,
) -> None:
    async with open_house(database_url, without=["limits"]) as house:
        await house.lend()
        await house.run(40)
        house.own(0.6)
        await house.run(40)
        assert house.heard(GuestsThrottled) == []
        assert {event.cause for event in house.heard(LimitsFailed)} == {"invalid"}
        metrics = (await house.ask("GET", "/metrics")).body
        about = f'cause="invalid",resource="{house.resource.resource_id}"'
        assert f"tides_limit_failures_total{{{about}}}" in metrics


@pytest.mark.parametrize(
    ("url", "key", "named"),
    [
        ("http://tides.example/boinc/", KEY.text, "TIDES_BOINC_URL"),
        ("https://localhost/boinc/", KEY.text, "TIDES_BOINC_URL"),
        ("https://tides.example/boinc", KEY.text, "TIDES_BOINC_URL"),
        ("https://tides.example/am/", KEY.text, "TIDES_BOINC_URL"),
        ("nonsense", KEY.text, "TIDES_BOINC_URL"),
        (URL, "", "TIDES_BOINC_SIGNING_KEY"),
        (URL, "1024\nabc\n.\n", "TIDES_BOINC_SIGNING_KEY"),
    ],
)
def test_what_clients_would_ignore_is_refused_when_the_process_starts(url: str, key: str, named: str) -> None:
    with pytest.raises(InvalidSettings, match=named) as refused:
        guests_of(Settings(boinc_url=url, boinc_signing_key=key))
    assert "\n" not in str(refused.value)


def test_without_an_address_machines_are_attached_by_files() -> None:
    assert guests_of(Settings(boinc_signing_key=KEY.text)) is None
