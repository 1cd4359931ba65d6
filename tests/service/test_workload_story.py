"""Long stories by the dice: whatever happens in whatever order, the books stay right and all is given back."""

import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from libs.common.contracts.action import ResourceReleased
from libs.common.contracts.resource import Mode
from libs.common.contracts.supply import TemplateState
from libs.common.contracts.usage import HostState
from tests.service.workload_books import check_books
from tests.service.workload_house import House, open_house

STEPS = 20
FAULTS = (
    "lose_answers",
    "create_full",
    "half_clone",
    "inventory_unreadable",
    "unavailable",
    "impossible_samples",
)
LADDER = {"stop_new_after_s": 20, "suspend_after_s": 20, "drain_after_s": 40, "drain_grace_s": 60}


class Dice:
    """What may happen next."""

    def __init__(self, house: House, seed: int) -> None:
        self.house = house
        self.chance = random.Random(seed)
        self.told: list[str] = []

    async def throw(self) -> None:
        """One thing happens, and some time passes."""
        acts: list[Callable[[], Awaitable[None]]] = [
            self.owner, self.owner, self.fault, self.repair, self.repair, self.meddle, self.host, self.person,
            self.mode, self.goods, self.policy, self.silence, self.lease, self.cluster_away,
        ]  # fmt: skip
        act = self.chance.choice(acts)
        self.told.append(act.__name__)
        await act()
        await self.house.run(self.chance.choice([5, 20, 40, 80]))

    async def owner(self) -> None:
        for host in self.house.cloud.truth().hosts:
            self.house.cloud.control.set_owner_load(
                host.host, self.chance.choice([0.05, 0.3, 0.55, 0.65, 0.95])
            )

    async def fault(self) -> None:
        self.house.cloud.control.set_fault(self.chance.choice(FAULTS), True)

    async def repair(self) -> None:
        self.house.cloud.control.clear_faults()

    async def meddle(self) -> None:
        machines = self.house.cloud.truth().machines
        if machines:
            name, control = self.chance.choice(machines).name, self.house.cloud.control
            which = self.chance.randrange(3)
            if which == 0:
                control.kill_machine(name)
            elif which == 1:
                control.switch_off_machine(name)
            else:
                control.tamper_limit(name, 12_345)

    async def host(self) -> None:
        host = self.chance.choice(self.house.cloud.truth().hosts).host
        if self.chance.random() < 0.3:
            self.house.cloud.control.fail_host(host)
        else:
            state = self.chance.choice([HostState.MAINTENANCE, HostState.CONNECTED, HostState.CONNECTED])
            self.house.cloud.control.set_host_state(host, state)

    async def person(self) -> None:
        cluster = f"/v1/clusters/{self.house.cluster_id}"
        bodies = {"pause": {"reason": "dice"}, "resume": {"reason": "dice"}, "drain": None}
        what = self.chance.choice([*bodies, "scale", "machine"])
        machines = await self.house.machines()
        if what == "scale":
            await self.house.act(f"{cluster}/scale", {"most_machines": self.chance.choice([None, 0, 1, 2])})
        elif what != "machine":
            await self.house.ask("POST", f"{cluster}/{what}", bodies[what])
        elif machines:
            machine = self.chance.choice(machines)["id"]
            await self.house.act(f"/v1/machines/{machine}/drain", {"reason": "dice"})

    async def mode(self) -> None:
        mode = self.chance.choice([Mode.LEND, Mode.LEND, Mode.LEND, Mode.PAUSED, Mode.OBSERVE, Mode.DRAINING])
        force = mode is Mode.DRAINING and self.chance.random() < 0.3
        await self.house.change_resource(mode=mode, force=force)

    async def goods(self) -> None:
        if self.chance.random() < 0.5:
            await self.house.change_contribution(active=self.chance.random() < 0.6)
        else:
            state = self.chance.choice(
                [TemplateState.REVOKED, TemplateState.APPROVED, TemplateState.APPROVED]
            )
            await self.house.change_template(state=state)

    async def policy(self) -> None:
        size = {
            "max_machines": self.chance.choice([1, 2, 4]),
            "machines_per_host": self.chance.choice([1, 2]),
        }
        ladder = {"ladder": LADDER | {"suspend": self.chance.random() < 0.6}}
        await self.house.assign(gone=self.chance.random() < 0.1, **size, **ladder)

    async def silence(self) -> None:
        await self.house.be_silent(self.chance.choice([30, 70, 120]))

    async def lease(self) -> None:
        await self.house.give_lease_to(self.chance.choice([None, uuid4()]), seconds=0.5)

    async def cluster_away(self) -> None:
        self.house.cloud.control.remove_cluster("domain-c1")
        await self.house.run(self.chance.choice([20, 100, 200, 400]))
        self.house.cloud.control.restore_cluster("domain-c1")


async def tell(house: House, dice: Dice) -> None:
    """The story, and how it must end once nothing is wrong any more."""
    await house.lend()
    await house.run(20)
    for step in range(STEPS):
        await dice.throw()
        if step % 10 == 0:
            await check_books(house)
    await _calm_down(house)
    shown = await house.cluster()
    assert await house.states() == ["running", "running"], (
        shown["reason"],
        shown["sweep_stopped"],
        dice.told,
    )
    budgets = {host["host"]: host["budget_mhz"] for host in (await house.cluster())["hosts"]}
    assert min(budgets.values()) >= 8_000, dice.told
    limits = {machine.host: machine.limit_mhz for machine in house.cloud.truth().machines}
    assert limits == budgets, dice.told
    assert set(house.limits()) <= {"applied", "superseded"}, dice.told


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3])
async def test_after_any_story_all_is_well_and_all_is_given_back(database_url: str, seed: int) -> None:
    async with open_house(database_url, replicas=1) as house, AsyncExitStack() as others:
        await others.enter_async_context(house.replica())
        dice = Dice(house, seed)
        await tell(house, dice)
        released = len(house.heard(ResourceReleased))
        await house.change_resource(mode=Mode.DRAINING, force=True)
        await house.run(60)
        assert house.cloud.truth().machines == (), dice.told
        assert await house.states() == []
        assert len(house.heard(ResourceReleased)) == released + 1


async def _calm_down(house: House) -> None:
    """Nothing is wrong any more, and the owner has gone home."""
    house.cloud.control.clear_faults()
    for host in house.cloud.truth().hosts:
        house.cloud.control.repair_host(host.host)
    house.own(0.1)
    await house.give_lease_to(None)
    await house.change_resource(mode=Mode.LEND, force=False)
    await house.change_contribution(active=True)
    await house.change_template(version_id=uuid4(), state=TemplateState.APPROVED)
    await house.assign()
    await house.act(f"/v1/clusters/{house.cluster_id}/resume", {"reason": "calm"})
    await house.act(f"/v1/clusters/{house.cluster_id}/scale", {"most_machines": None})
    await house.run(100)
    for _ in range(2):  # a growth pause lasts an hour at most, a grace ten minutes
        house.clock.leap(3600)
        await house.run(200)
