"""The agents' door, from outside, with the agent itself: it enrols once, reads nothing but its own, and drains."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from libs.common.auth import Role
from libs.common.contracts.action import MachineDestroyed, MachineDraining, MachineResumed
from libs.common.contracts.supply import MachineDrained
from services.contribution.api.limits import STRANGER_BURST, TOKEN_BURST
from services.contribution.domain import DEAD_MAN_S, HEARTBEAT_S
from tests.service.guest_house import MACHINES, SECRET, House, guest_house
from tests.service.lone_service import THEIRS
from tests.support import until

AGENT = Path(__file__).parents[2] / "libs" / "guest" / "agent.py"


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with guest_house(database_url) as one:
        yield one


async def test_a_machine_enrols_once_however_often_the_answer_is_lost(house: House) -> None:
    answers = [await house.enrol("token-0") for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert answers[0].body == {"heartbeat_s": HEARTBEAT_S, "dead_man_s": DEAD_MAN_S, "commands": []}
    assert (await house.enrol("token-0", "another-secret-that-a-thief-has-drawn")).status == 403
    assert (await house.enrol("guessed")).status == 403
    assert (await house.beat()).status == 200


async def test_who_has_no_secret_is_told_nothing(house: House, capfd: pytest.CaptureFixture[str]) -> None:
    await house.enrol("token-0")
    for secret in ("", "token-0", "x" * 40, "\u00e9"):
        assert (await house.beat(secret)).status == 401
    short = await house.enrol("token-1", "short")
    assert (short.status, short.field) == (422, "secret")
    await house.say(MachineDestroyed)
    assert (await house.beat()).status == 401
    assert (await house.enrol("token-0")).status == 403
    assert SECRET not in "".join(capfd.readouterr())


async def test_a_door_that_is_knocked_at_too_often_says_when_to_come_again(house: House) -> None:
    await house.enrol("token-0")
    for _ in range(int(TOKEN_BURST)):
        assert (await house.beat()).status == 200
    again = await house.beat()
    assert (again.status, again.headers["retry-after"]) == (429, "5")

    await house.enrol("token-1", SECRET + "-other")
    await house.beat(SECRET + "-other")
    guesses = [(await house.beat(f"guess-{number:040}")).status for number in range(int(STRANGER_BURST) + 1)]
    assert guesses == [401] * int(STRANGER_BURST) + [429]
    assert (await house.enrol("guessed")).status == 429
    assert (await house.beat(SECRET + "-other")).status == 200


async def test_a_draining_machine_is_told_what_is_left_of_its_grace_and_nobody_else_is(house: House) -> None:
    await house.enrol("token-0")
    await house.enrol("token-1", SECRET + "-other")
    await house.say(MachineDraining, grace_s=120)
    house.clock.at += timedelta(seconds=40)

    [command] = (await house.beat()).body["commands"]
    assert command == {"id": "drain", "do": "drain", "deadline_s": 65.0}
    assert (await house.beat(SECRET + "-other")).body["commands"] == []

    told: dict[str, Any] = {"outcomes": {"drain": {"lost_cpu_s": 12.5, "tasks": 3, "took_s": 9.0}}}
    for _ in range(2):
        assert (await house.beat(**told)).body["commands"] == []
    [event] = await house.lone.hear(1)
    assert isinstance(event, MachineDrained)
    assert (event.machine_id, event.lost_cpu_s, event.tasks) == (MACHINES[0], 12.5, 3)


@pytest.mark.parametrize(
    "outcome", [{}, {"lost_cpu_s": "much"}, {"lost_cpu_s": -1, "tasks": True}, {"tasks": 1e300}]
)
async def test_an_outcome_that_says_nothing_sensible_still_ends_the_drain(
    house: House, outcome: dict[str, Any]
) -> None:
    await house.enrol("token-0")
    await house.say(MachineDraining)
    assert (await house.beat(outcomes={"drain": outcome})).status == 200
    [event] = await house.lone.hear(1)
    assert isinstance(event, MachineDrained)
    assert (event.lost_cpu_s, event.tasks) == (0.0, 0)


async def test_an_outcome_that_nobody_asked_for_is_no_drain(house: House) -> None:
    await house.enrol("token-0")
    await house.beat(outcomes={"drain": {"lost_cpu_s": 1.0}})
    await house.say(MachineDraining)
    assert len((await house.beat()).body["commands"]) == 1
    many = {str(number): number for number in range(21)}
    tales: list[dict[str, dict[str, int]]] = [{"x" * 81: {}}, {"x": {"y" * 81: 1}}, {"x": many}]
    for hostile in tales:
        assert (await house.beat(outcomes=hostile)).status == 422


async def test_a_drain_that_is_called_off_is_undone_by_the_agent_and_can_come_again(house: House) -> None:
    await house.enrol("token-0")
    await house.say(MachineDraining)
    await house.beat(outcomes={"drain": {"lost_cpu_s": 1.0}})
    house.clock.at += timedelta(seconds=5)
    await house.say(MachineResumed)
    house.clock.at -= timedelta(seconds=5)
    await house.say(MachineDraining)  # the same word once more
    house.clock.at += timedelta(seconds=5)

    [command] = (await house.beat()).body["commands"]
    assert command["do"] == "resume"
    assert (await house.beat()).body["commands"] == [command]
    assert (await house.beat(outcomes={command["id"]: {"done": True}})).body["commands"] == []
    house.clock.at += timedelta(seconds=5)
    await house.say(MachineDraining)
    [again] = (await house.beat()).body["commands"]
    assert again["do"] == "drain"
    house.clock.at -= timedelta(seconds=6)
    await house.say(MachineResumed)  # an old word comes late
    assert [each["do"] for each in (await house.beat()).body["commands"]] == ["drain"]


async def test_an_operator_sees_how_every_machine_of_the_organisation_does(house: House) -> None:
    async def seen() -> dict[str, str]:
        items = (await house.lone.ask("GET", "/v1/guests", role=Role.VIEWER)).body["items"]
        return {item["machine_id"]: item["health"] for item in items}

    first, second = map(str, MACHINES)
    assert await seen() == {first: "awaited", second: "awaited"}
    await house.enrol("token-0")
    for told, health in (
        ({"tasks": [{"executing": True}]}, "working"),
        ({"tasks": []}, "starved"),
        ({"boinc_error": "away\n"}, "broken"),
        ({"held": True}, "held"),
    ):
        assert (await house.beat(**told)).status == 200
        assert (await seen())[first] == health
    house.clock.at += timedelta(seconds=4 * HEARTBEAT_S + 1)
    assert (await seen())[first] == "silent"
    await house.say(MachineDraining)
    await house.beat(outcomes={"drain": {}})
    assert (await seen())[first] == "drained"
    await house.say(MachineDestroyed)
    assert await seen() == {second: "awaited"}
    others = await house.lone.ask("GET", "/v1/guests", organisation=THEIRS)
    assert others.body["items"] == []
    one = await house.lone.ask("GET", "/v1/guests?limit=1", role=Role.ADMIN, organisation=THEIRS)
    assert len(one.body["items"]) == 1
    assert (await house.lone.ask("GET", "/v1/guests", role=None)).status == 401


class Client:
    """A BOINC client of two tasks, one of which ends in time."""

    def __init__(self) -> None:
        self.left = {"quick": 5.0, "long": 9_000.0}
        self.asked: list[str] = []

    def tasks(self) -> list[dict[str, Any]]:
        usual = {
            "url": "u",
            "state": 2,
            "ready": False,
            "suspended": False,
            "started": True,
            "executing": True,
        }
        usual |= {"cpu_s": 100.0, "saved_s": 60.0, "done": 0.5}
        return [{"name": name, "remaining_s": left, **usual} for name, left in self.left.items()]

    def alerts(self) -> dict[str, str]:
        return {"u": "No work is available"}

    def projects(self) -> list[str]:
        return ["u"]

    def ask(self, body: str) -> str:
        self.asked.append(body)
        return ""

    def with_project(self, operation: str, url: str) -> None:
        self.asked.append(operation)
        if operation == "project_update":
            self.left.pop("long", None)

    def with_task(self, operation: str, task: dict[str, Any]) -> None:
        self.asked.append(f"{operation} {task['name']}")


async def test_the_agent_and_the_door_understand_each_other(house: House, tmp_path: Path) -> None:
    found = importlib.util.spec_from_file_location("tides_agent_at_the_door", AGENT)
    assert found is not None
    assert found.loader is not None
    module: Any = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    given = {"door": f"{house.lone.run.url}/guests/", "token": "token-0", "heard": str(tmp_path / "heard")}
    one = module.Agent(given | {"state": str(tmp_path / "state" / "agent.json")}, 0.0)
    one.boinc = Client()
    times = iter(range(1, 10_000))

    async def step() -> None:
        one.beat_at = 0.0
        await asyncio.to_thread(one.step, float(next(times)))
        await asyncio.sleep(0.01)

    async def is_told_to_drain() -> bool:
        await step()
        return one.drain is not None

    async def has_told_the_outcome() -> bool:
        one.boinc.left.pop("quick", None)
        await step()
        return any(isinstance(event, MachineDrained) for event in house.lone.said)

    await until(lambda: _enrolled(one, step), 10, "it is enrolled")
    await house.say(MachineDraining, grace_s=120)
    await until(is_told_to_drain, 10, "it drains")
    await until(has_told_the_outcome, 10, "its outcome is known")
    [event] = house.lone.said
    assert isinstance(event, MachineDrained)
    assert (event.lost_cpu_s, event.tasks) == (100.0, 2)
    assert one.boinc.asked[0] == "project_nomorework"
    assert "abort_result long" in one.boinc.asked
    assert "abort_result quick" not in one.boinc.asked
    assert one.boinc.asked[-1] == "<quit/>"


async def _enrolled(one: Any, step: Any) -> bool:
    await step()
    return bool(one.state["enrolled"])
