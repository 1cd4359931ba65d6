"""Workload at work: replicas on one database and bus, a simulated cloud, a stepped clock, and who else speaks.

The house says what registry, policy, templates, contribution and monitor would say, and keeps the books: every action
event is heard once, every limit has one outcome, every stored decision can be decided again.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import aiohttp
import asyncpg

from libs.common.auth import Principal, Role, Signer, generate_signing_keys
from libs.common.bus import open_bus
from libs.common.bus.base import Bus, Message, Queue
from libs.common.bus.messages import decode, to_message
from libs.common.clock import SteppedClock
from libs.common.contracts.action import LimitFact
from libs.common.contracts.base import Event
from libs.common.contracts.catalogue import CATALOGUE
from libs.common.contracts.resource import Mode, ResourceChanged
from libs.common.contracts.supply import (
    ContributionChanged,
    PolicyAssigned,
    Scope,
    TemplateChanged,
)
from libs.common.contracts.usage import Sample, UsageSampled
from libs.common.ids import cluster_id, new_id
from libs.common.runner import Running, running
from libs.common.secrets import fresh_key
from libs.common.settings import Settings
from libs.providers.base import Connection, MachineSpec, Mark, Provider, ProviderError
from libs.providers.simulated import (
    Cloud,
    ClusterDefinition,
    OwnerProfile,
    SimulatedSettings,
    create_cloud,
    driver,
)
from services.workload.main import build
from services.workload.reconcile.hands import Hands
from tests.service.lone_service import OURS, Answer
from tests.service.workload_books import check_books
from tests.service.workload_words import INTERVAL_S, PASSWORD, POLICY, START, first_words, next_state
from tests.support import until

E = TypeVar("E", bound=Event)
LAB = ClusterDefinition(
    name="lab", hosts=2, owner=OwnerProfile.IDLE, cores=8, core_mhz=2500, memory_gib=64, datastore_gib=4096
)


class LeapingClock(SteppedClock):
    """A stepped clock that can also leave time out."""

    def leap(self, seconds: float) -> None:
        """Let this much time pass in which nothing happens."""
        self._now += timedelta(seconds=seconds)


@dataclass
class House:
    """Everything around workload, and what it said."""

    settings: Settings
    signer: Signer
    bus: Bus
    http: aiohttp.ClientSession
    clock: LeapingClock
    cloud: Cloud
    resource: ResourceChanged
    template: TemplateChanged
    contribution: ContributionChanged
    replicas: list[Running] = field(default_factory=list)
    said: list[Event] = field(default_factory=list)
    """Every message that was heard, repeats included."""
    documents: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Policy documents by revision."""
    assigned: list[PolicyAssigned] = field(default_factory=list)
    policy_id: UUID = field(default_factory=uuid4)
    eyes: Provider | None = None

    @property
    def cluster_id(self) -> UUID:
        """The first cluster."""
        return cluster_id(self.resource.resource_id, "domain-c1")

    @asynccontextmanager
    async def replica(self) -> AsyncIterator[Running]:
        """One more replica of the service, from start to orderly stop."""
        async with running([build], self.settings, clock=self.clock) as run:
            self.replicas.append(run)
            try:
                yield run
            finally:
                self.replicas.remove(run)

    async def tell(self, *events: Event) -> None:
        """Publish events, and wait until they have been handled."""
        for event in events:
            await self.bus.publish(to_message(event, "/tides/test"))
        await self.settle()

    async def settle(self) -> None:
        """Wait until nothing waits on the bus and nothing goes on."""

        async def is_quiet() -> bool:
            for run in self.replicas:
                await run.activity.idle()
            buses = [self.bus, *(run.bus for run in self.replicas[:1])]
            depth = sum([await bus.depth() for bus in buses])
            return depth == 0 and all(run.activity.is_idle for run in self.replicas)

        await until(is_quiet, timeout=30, what="quiet")

    async def log_is_shown(self) -> None:
        """Wait until the log shows all that was written: not before every older writer has ended."""

        async def is_shown() -> bool:
            newest = (await self.ask("GET", "/v1/events?order=newest&limit=1")).body["items"]
            rows = await self.fetch("select id from action_event order by number desc limit 1")
            return [item["id"] for item in newest] == [str(row["id"]) for row in rows]

        await until(is_shown, timeout=60, what="a log that shows everything")

    async def lend(self, **policy: Any) -> None:
        """Everything that lending takes: resource, policy, template, contribution."""
        await self.change_resource(mode=Mode.LEND)
        await self.tell(self.template, self.contribution)
        await self.assign(**policy)

    async def change_resource(self, **changes: Any) -> None:
        """A new state of the resource."""
        self.resource = next_state(self.resource, **changes)
        await self.tell(self.resource)

    async def change_template(self, **changes: Any) -> None:
        """A new state of the template version."""
        self.template = next_state(self.template, **changes)
        await self.tell(self.template)

    async def change_contribution(self, **changes: Any) -> None:
        """A new state of the contribution."""
        self.contribution = next_state(self.contribution, **changes)
        await self.tell(self.contribution)

    async def assign(self, *, gone: bool = False, **changes: Any) -> None:
        """A new revision of the policy, assigned to the resource."""
        await self._assign(Scope.RESOURCE, self.resource.resource_id, gone, changes)

    async def assign_to_cluster(self, *, gone: bool = False, **changes: Any) -> None:
        """A new revision of the policy, assigned to the first cluster."""
        await self._assign(Scope.CLUSTER, self.cluster_id, gone, changes)

    async def _assign(self, scope: Scope, scope_id: UUID, gone: bool, changes: dict[str, Any]) -> None:
        revision = len(self.documents) + 1
        self.documents[revision] = POLICY | changes
        given = {"at": self.clock.now(), "scope": scope, "scope_id": scope_id}
        policy = {"policy_id": self.policy_id, "policy_name": "quick", "policy_revision": revision}
        event = {"revision": revision, "document": self.documents[revision], "gone": gone}
        self.assigned.append(PolicyAssigned.model_validate(given | policy | event))
        await self.tell(self.assigned[-1])

    async def run(self, seconds: float) -> None:
        """Let time pass; at the end of every interval monitor takes its samples, if it can."""
        end = self.clock.now() + timedelta(seconds=seconds)
        while (tick := self._next_tick()) <= end:
            await self.step_until(tick)
            await self.sample()
        await self.step_until(end)

    async def step_until(self, moment: datetime) -> None:
        """Let time pass without samples."""
        reached: list[bool] = []
        left_s = (moment - self.clock.now()).total_seconds()
        timer = self.clock.call_later(left_s, lambda: reached.append(True))
        try:
            while not reached:
                await self.settle()
                self.clock.advance()
            await self.settle()
        finally:
            timer.cancel()

    async def be_silent(self, seconds: float) -> None:
        """Let time pass without samples."""
        await self.step_until(self.clock.now() + timedelta(seconds=seconds))

    async def sample(self) -> None:
        """What monitor does on its tick; a cloud that does not answer is not heard of."""
        with suppress(ProviderError):
            await self.publish(*await self.measure())

    async def measure(self, since: datetime | None = None) -> Sequence[Sample]:
        """Samples as the driver takes them."""
        if self.eyes is None:
            self.eyes = await driver.open(self.connection(), self.settings.vault(), self.clock)
        return await self.eyes.sample(since)

    async def publish(self, *samples: Sample, **changes: Any) -> None:
        """One round of samples."""
        await self.tell(self.round_of(*samples, **changes))

    def round_of(self, *samples: Sample, **changes: Any) -> UsageSampled:
        """Samples as monitor sends them."""
        now = self.clock.now()
        given = {"id": new_id(), "at": now, "received_at": now, "resource_id": self.resource.resource_id}
        return UsageSampled.model_validate(given | {"samples": samples} | changes)

    async def tamper(self, **changes: Any) -> Sample:
        """Publish the newest sample of the first cluster, falsified."""
        sample = replace((await self.measure())[0], **changes)
        await self.publish(sample)
        return sample

    async def make_strangers(self, count: int, installation: UUID | None = None) -> list[str]:
        """Machines that no row knows, with the mark of this installation or of another."""
        connection = self.connection()
        owner = installation or connection.installation_id
        stranger = replace(connection, installation_id=owner)
        hand = await driver.open(stranger, self.settings.vault(), self.clock)
        names = []
        for _ in range(count):
            mark = Mark(owner, uuid4())
            names.append(f"tides-{mark.machine_id}")
            await hand.create(
                MachineSpec(names[-1], mark, "domain-c1", None, "boinc-worker", 1, 128, 1.0, 200.0, "")
            )
        return names

    def connection(self) -> Connection:
        """How drivers reach the cloud."""
        resource = self.resource
        installation = self.settings.installation_id
        assert installation is not None
        return Connection(
            resource.resource_id, installation, resource.url, resource.username, resource.sealed_secret
        )

    def own(self, fraction: float) -> None:
        """The owner uses this fraction of every host from now on."""
        for host in self.cloud.truth().hosts:
            self.cloud.control.set_owner_load(host.host, fraction)

    def heard(self, kind: type[E]) -> list[E]:
        """What workload said of this kind, once per id, in order of arrival."""
        found: dict[UUID, E] = {}
        for event in self.said:
            if type(event) is kind:
                found.setdefault(event.id, event)
        return list(found.values())

    def limits(self) -> list[str]:
        """The outcome of every limits action in order of request; `open` where there is none."""
        words = {"requested": "open", "applied": "applied", "superseded": "superseded", "failed": "failed"}
        outcomes: dict[UUID, str] = {}
        for event in self.said:
            if isinstance(event, LimitFact):
                outcomes[event.action_id] = words[event.key.split(".")[1].removeprefix("limits_")]
        return list(outcomes.values())

    async def ask(
        self, method: str, path: str, body: Any = None, *, role: Role | None = Role.OPERATOR, **more: Any
    ) -> Answer:
        """One request to the newest replica."""
        who = Principal(uuid4(), "Ada", role or Role.VIEWER, more.pop("organisation", OURS), uuid4())
        headers = dict(more.pop("headers", {}))
        if role is not None:
            headers["Authorization"] = f"Bearer {self.signer.sign(who)}"
        if body is not None:
            more["json"] = body
        url = self.replicas[-1].url + path
        async with self.http.request(method, url, headers=headers, **more) as response:
            is_json = "json" in response.content_type
            content = await response.json(content_type=None) if is_json else await response.text()
            return Answer(response.status, content, dict(response.headers))

    async def act(self, path: str, body: Any = None) -> Any:
        """What an operator asks for, carried out."""
        answer = await self.ask("POST", path, body)
        assert answer.status in (200, 202), answer.body
        await self.settle()
        return answer.body

    async def cluster(self) -> dict[str, Any]:
        """The first cluster as an operator sees it."""
        answer = await self.ask("GET", f"/v1/clusters/{self.cluster_id}")
        assert answer.status == 200, answer.body
        body: dict[str, Any] = answer.body
        return body

    async def machines(self, *, live: bool = True) -> list[dict[str, Any]]:
        """All machines as an operator sees them, oldest first."""
        answer = await self.ask("GET", f"/v1/machines?limit=200&live={str(live).lower()}")
        items: list[dict[str, Any]] = answer.body["items"]
        return items

    async def states(self, *, live: bool = True) -> list[str]:
        """States of the machines, oldest first."""
        return [machine["state"] for machine in await self.machines(live=live)]

    def hands(self) -> Hands:
        """What the first replica acts with."""
        hands = getattr(self.replicas[0].services[0].closes[0], "__self__", None)
        assert isinstance(hands, Hands)
        return hands

    async def begin_anew(self) -> None:
        """The first replica logs in and looks before it acts again."""
        hands = self.hands()
        hands.looked_at.clear()
        await hands.sessions.drop(self.resource.resource_id)

    async def give_lease_to(self, replica: UUID | None, seconds: float = 3600) -> None:
        """What the database says when somebody else acts on the cloud; None: nobody does."""
        until_at = "clock_timestamp() + $2 * interval '1 second'" if replica else "null"
        values = (replica, seconds) if replica else (None,)
        await self.execute(f"update resource set lease_token = $1, lease_until = {until_at}", *values)

    async def execute(self, statement: str, *values: Any) -> str:
        """Change workload's schema behind its back."""
        async with self.schema() as connection:
            done: str = await connection.execute(statement, *values)
            return done

    async def fetch(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Look into workload's schema."""
        async with self.schema() as connection:
            return [dict(row) for row in await connection.fetch(query, *values)]

    @asynccontextmanager
    async def schema(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection to workload's tables, beside all replicas."""
        connection = await asyncpg.connect(self.settings.database_dsn)
        await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        try:
            await connection.execute("set search_path to workload")
            yield connection
        finally:
            await connection.close()

    def _next_tick(self) -> datetime:
        passed_s = (self.clock.now() - START).total_seconds()
        return START + timedelta(seconds=(passed_s // INTERVAL_S + 1) * INTERVAL_S)


@asynccontextmanager
async def open_house(database_url: str, replicas: int = 1, **cloud: Any) -> AsyncIterator[House]:
    """A house with its replicas running; `cloud` shapes the cloud. At the end the books must be right."""
    private, verify_keys = generate_signing_keys()
    given = {
        "database_url": database_url, "sealing_keys": f"test:{fresh_key()}", "verify_keys": verify_keys,
        "installation_id": str(uuid4()), "port": 0, "pool_size": 3, "beat_floor_s": 5.0, "jitter": 0.0,
    }  # fmt: skip
    settings, clock = Settings.model_validate(given), LeapingClock(START)
    shape: dict[str, Any] = {"interval_s": INTERVAL_S, "clusters": (LAB,), "clone_s": 5, "boot_s": 5}
    made = create_cloud(
        f"sim://{uuid4().hex}", PASSWORD, SimulatedSettings.model_validate(shape | cloud), clock
    )
    async with AsyncExitStack() as stack:
        stack.callback(driver.forget_cloud, made.url)
        bus = await open_bus(settings.bus_dsn)
        stack.push_async_callback(bus.aclose)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        said = first_words(settings, made)
        house = House(settings, Signer(private), bus, http, clock, made, *said)
        house.own(0.1)
        await stack.enter_async_context(_listening(house))
        for _ in range(replicas):
            await stack.enter_async_context(house.replica())
        await house.settle()
        yield house
        await check_books(house)


@asynccontextmanager
async def _listening(house: House) -> AsyncIterator[None]:
    """An ear for all that workload says, and queues for all that it hears before it runs."""
    keys = [row.event.key for row in CATALOGUE if row.publisher == "workload"]
    queue = Queue("test.said", tuple(keys), prefetch=50)
    await house.bus.declare([queue])

    async def note(message: Message) -> None:
        house.said.append(decode(message))

    ear = asyncio.create_task(house.bus.consume(queue, note))
    try:
        yield
    finally:
        ear.cancel()
        with suppress(asyncio.CancelledError):
            await ear
