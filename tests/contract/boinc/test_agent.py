"""The agent beside a real client of Debian's: what a drain saves, and what happens when nobody is heard of."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from libs.boinc.demo_project import DemoProject
from libs.boinc.gui import GuiRpcError, Operation, Task
from tests.boinclab.world import World, agent_of, boinc_world, gui_of, machine_files
from tests.support import until
from tools.parts import PartMissing
from tools.parts.boinc import BoincClient

log = structlog.get_logger()
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
TASKS = 3
CHECKPOINT_S = 12.0


async def working(world: World, project: DemoProject, unsaved_s: float) -> BoincClient:
    """A client with as many running tasks as it has processors, each this far beyond its checkpoint."""
    try:
        seat = world.manager.seat(world.account(project))
        client = await world.client(machine_files(world, seat, f"<ncpus>{TASKS}</ncpus>"))
        await client.start()
    except PartMissing as missing:
        pytest.fail(str(missing), pytrace=False)
    await until(lambda: busy(client, unsaved_s), 60, "the tasks are under way")
    return client


async def tasks_of(client: BoincClient) -> tuple[Task, ...]:
    async with await gui_of(client) as gui:
        return await gui.tasks()


async def busy(client: BoincClient, unsaved_s: float, most_s: float = CHECKPOINT_S) -> bool:
    running = [task for task in await tasks_of(client) if task.executing and task.checkpoint_cpu_s > 0]
    return len(running) == TASKS and all(unsaved_s <= task.unsaved_cpu_s <= most_s for task in running)


def lost_cpu_s(client: BoincClient) -> list[float]:
    """What each task had computed beyond its checkpoint when it was ended, by its own account."""
    return [float(path.read_text()) for path in sorted(client.data.glob("slots/*/lost"))]


async def test_a_drain_loses_less_than_a_plain_quit_and_what_is_kept_goes_on(tmp_path: Path) -> None:
    async with boinc_world() as world:
        project = await world.project(jobs_per_host=TASKS + 2, cpu_s=600.0, checkpoint_s=CHECKPOINT_S)
        door, throwing = await world.door(), await world.door()
        kept, quit_, thrown = await asyncio.gather(*(working(world, project, 4.0) for _ in range(3)))
        for name in ("kept", "thrown"):
            (tmp_path / name).mkdir()
        async with (
            agent_of(kept, door, tmp_path / "kept"),
            agent_of(thrown, throwing, tmp_path / "thrown"),
        ):
            await until(lambda: door.beats and throwing.beats, 10, "the agents report")
            assert len(door.beats[0]["tasks"]) == TASKS + 2
            number = door.order("drain", deadline_s=40, keeps_disk=True)
            other = throwing.order("drain", deadline_s=40)
            await until(lambda: busy(quit_, 7.0, 9.0), 60, "its next checkpoint is seconds away")
            async with await gui_of(quit_) as gui:
                await gui.quit()
            await until(
                lambda: number in door.outcomes and other in throwing.outcomes, 60, "both are drained"
            )
        for client in (kept, quit_, thrown):
            await client.ended()

        outcome = door.outcomes[number]
        saved, plain = lost_cpu_s(kept), lost_cpu_s(quit_)
        log.info("drain.compared", drained_cpu_s=sum(saved), quit_cpu_s=sum(plain), tasks=TASKS, told=outcome)
        assert (len(saved), len(plain)) == (TASKS, TASKS)
        assert min(plain) >= 7.0
        assert max(saved) <= 4.0
        assert sum(saved) < sum(plain) / 2
        assert abs(outcome["lost_cpu_s"] - sum(saved)) <= TASKS * 0.5
        assert outcome["took_s"] < CHECKPOINT_S + 6

        report = throwing.outcomes[other]
        assert report["aborted"] == TASKS + 2
        assert report["took_s"] < 20
        assert [job.exit_status for job in project.reported] == [203] * (TASKS + 2)
        assert project.faults == []

        await kept.start()
        async with agent_of(kept, door, tmp_path / "kept") as off:
            resumed = door.order("resume")
            await until(lambda: door.outcomes.get(resumed) == {"done": True}, 15, "it is told to go on")
            await until(lambda: running_from_checkpoints(kept), 15, "the tasks go on from where they were")
            stopped = door.order("stop")
            await until(lambda: door.outcomes.get(stopped) == {"done": True}, 15, "it says that it stops")
            await until(off.exists, 15, "and shuts its machine down")
            await kept.ended()
        assert door.enrolments == 1


async def running_from_checkpoints(client: BoincClient) -> bool:
    running = [task for task in await tasks_of(client) if task.executing]
    return len(running) == TASKS and all(task.current_cpu_s >= CHECKPOINT_S for task in running)


async def mode_of(client: BoincClient) -> dict[str, Any]:
    """Run mode (1 always, 2 auto, 3 never) and the limit of CPU use."""
    async with await gui_of(client) as gui:
        limit = (await gui.ask("<get_global_prefs_working/>")).find("global_preferences")
        assert limit is not None
        return {"mode": (await gui.status()).integer("task_mode"), "percent": limit.number("cpu_usage_limit")}


async def test_a_machine_that_hears_of_nobody_stops_and_shuts_down(tmp_path: Path) -> None:
    async with boinc_world() as world:
        project = await world.project()
        door = await world.door(dead_man_s=4)
        seat = world.manager.seat(world.account(project))
        client = await world.client(machine_files(world, seat))
        world.manager.down = door.silent = True
        async with agent_of(
            client, door, tmp_path, sync_s=1, dead_man_s=60, poweroff_after_s=6, heartbeat_s=1
        ) as off:
            await asyncio.sleep(1.5)  # the machine is up before BOINC and before its network
            await client.start()
            await until(
                lambda: "Account manager contact failed" in client.log or "HTTP" in client.log, 15, "down"
            )
            world.manager.down = door.silent = False
            door.lose = 1
            await until(lambda: seat.heard, 20, "the agent makes the client try again")
            await until(lambda: door.beats, 20, "it enrols in spite of a lost answer")
            assert door.enrolments == 2

            idle = door.order("throttle", percent=0)
            await until(lambda: door.outcomes.get(idle) == {"done": True}, 10, "it computes nothing")
            assert (await mode_of(client))["mode"] == 3
            number = door.order("throttle", percent=35)
            await until(lambda: door.outcomes.get(number) == {"done": True}, 10, "it is throttled")
            assert await mode_of(client) == {"mode": 2, "percent": 35.0}

            door.silent = True
            await until(lambda: held(client), 15, "BOINC is suspended")
            door.silent = False
            await until(lambda: free(client), 15, "and goes on when somebody is heard")
            assert not off.exists()

            door.silent = True
            await until(off.exists, 30, "the machine is shut down")
            await client.ended()
        assert door.secret is not None
        assert door.secret not in (tmp_path / "agent.log").read_text()


async def held(client: BoincClient) -> bool:
    return bool((await mode_of(client))["mode"] == 3)


async def free(client: BoincClient) -> bool:
    try:
        return bool((await mode_of(client))["mode"] == 2)
    except GuiRpcError:
        return False


async def test_the_agent_tells_why_a_project_refuses_the_machine_until_it_does_not(tmp_path: Path) -> None:
    async with boinc_world() as world:
        project = await world.project(jobs_per_host=0)
        door = await world.door()
        account = world.account(project)
        weak, wrong = account.authenticator, f"{account.authenticator[:-4]}0000"
        client = await world.client(
            machine_files(world, world.manager.seat(replace(account, authenticator=wrong)))
        )
        await client.start()
        async with agent_of(client, door, tmp_path):
            await until(lambda: door.beats and door.beats[-1].get("alerts"), 30, "the refusal is told")
            [(url, said)] = door.beats[-1]["alerts"].items()
            assert url == project.url
            assert "account key" in said
            assert weak not in said

            project.users[0].weak = wrong  # as if it had been so all the time
            async with await gui_of(client) as gui:
                await gui.operate(Operation.UPDATE, project.url)
            await until(lambda: door.beats[-1].get("alerts") == {}, 30, "and is told no more")
