"""The vSphere driver: vCenter, and a single ESXi host as far as it can serve."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ValidationError

from libs.common.clock import Clock
from libs.common.contracts.usage import Sample
from libs.common.secrets import Unsealable, Vault
from libs.providers.base import (
    Begun,
    Capability,
    Cause,
    Connection,
    HostHardware,
    MachineSeen,
    MachineSpec,
    Power,
    Rejected,
    TemplateSeen,
    Unavailable,
    Validation,
    sealing_context,
)
from libs.providers.vsphere.actions import Yard, delete_machine, set_power
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.capabilities import LOOKING, learn_capabilities
from libs.providers.vsphere.clones import Clones, UnderWay
from libs.providers.vsphere.deploy import create_machine
from libs.providers.vsphere.fleet import Labels, describe_fleet, find_folders, read_fleet
from libs.providers.vsphere.images import keep_as_template, may_keep
from libs.providers.vsphere.inventory import Cluster, read_clusters
from libs.providers.vsphere.limits import Limits, release_cluster
from libs.providers.vsphere.metal import MetalWatch
from libs.providers.vsphere.placing import Workshop
from libs.providers.vsphere.pools import Shares, give_way, sum_siblings
from libs.providers.vsphere.rounds import Rounds
from libs.providers.vsphere.session import Login, Session
from libs.providers.vsphere.settings import VSphereSettings, identify, parse_url
from libs.providers.vsphere.templates import Templates
from libs.providers.vsphere.transport import Trust, parse_thumbprint
from libs.providers.vsphere.validate import validate

ROUND_TIMEOUT_S = 60.0
SIBLINGS_KEPT = timedelta(minutes=5)


class VSphereProvider:
    """An open session to a vCenter or ESXi host."""

    def __init__(
        self,
        session: Session,
        connection: Connection,
        settings: VSphereSettings,
        clock: Clock,
        under_way: UnderWay,
    ) -> None:
        self.capabilities: frozenset[Capability] = LOOKING
        self._session = session
        self._settings = settings
        self._clock = clock
        self._siblings: dict[str, tuple[datetime, Shares]] = {}
        self._labels = Labels()
        self._templates = Templates(settings)
        self._rounds = Rounds(session, settings, self._labels)
        self._metal = MetalWatch(session)
        self._yard = Yard(session, settings, connection.installation_id, self._labels)
        self._limits = Limits(self._yard, self._shares)
        self._clones = Clones(session, under_way.clones)
        self._workshop = Workshop(
            session, settings, self._labels, self._templates, self._shares, self._clones, under_way.copies
        )
        self._creating: dict[str, asyncio.Lock] = {}
        self._under_way = under_way
        under_way.users += 1

    async def start(self) -> None:
        """Log in and learn what this target can do. Raises Rejected or Unavailable."""
        self.capabilities = await self._session.call(self._learn, "opening the session")
        self._session.keep_alive()

    def _learn(self, api: Api) -> frozenset[Capability]:
        found = learn_capabilities(api, read_clusters(api, self._settings))
        return found if may_keep(self._settings) else found - {Capability.TEMPLATES}

    def _shares(self, api: Api, cluster: Cluster) -> Shares:
        """Our pool's shares beside its siblings, which are summed anew every few minutes."""
        now = self._clock.now()
        known = self._siblings.get(cluster.id)
        if known is None or now - known[0] > SIBLINGS_KEPT:
            known = (now, sum_siblings(api, cluster, self._settings))
            self._siblings[cluster.id] = known
        return give_way(known[1])

    async def validate(self) -> Validation:
        """Facts, missing privileges by name, warnings."""
        return await self._session.call(
            lambda api: validate(api, self._settings), "validating", ROUND_TIMEOUT_S
        )

    async def sample(self, since: datetime | None) -> Sequence[Sample]:
        """One bulk round over all clusters in scope, oldest first."""
        try:
            return await self._session.read(
                lambda line: self._rounds.sample(line, since), "sampling", ROUND_TIMEOUT_S
            )
        except Rejected as refusal:
            if refusal.cause is not Cause.NOT_FOUND:
                raise
            # What a round read a moment ago went away meanwhile: the next one reads anew.
            raise Unavailable(refusal.cause, refusal.detail) from None

    async def hardware(self) -> Sequence[HostHardware]:
        """Cores of all hosts, and the rest of those that were read so far."""
        clusters = await self._session.call(
            lambda api: read_clusters(api, self._settings), "listing hosts", ROUND_TIMEOUT_S
        )
        return await self._metal.look(clusters, self._clock.now())

    async def machines(self) -> Sequence[MachineSeen]:
        """Our machines in scope. Raises Unavailable when the inventory cannot be read."""
        seen = await self._session.call(self._read_machines, "listing machines", ROUND_TIMEOUT_S)
        return self._clones.show(seen)

    async def recall(self, begun: Sequence[Begun]) -> None:
        """Follow clones that an earlier process began."""
        await self._clones.take_up(begun, self._templates)

    def _read_machines(self, api: Api) -> list[MachineSeen]:
        clusters = read_clusters(api, self._settings)
        fleet = read_fleet(api, find_folders(api, self._settings, clusters), self._labels)
        return describe_fleet(api, fleet, clusters)

    async def find_template(self, name: str) -> TemplateSeen | None:
        """A template, or a plain VM that serves as one, by name or object id."""
        found = await self._session.call(
            lambda api: self._templates.find(api, name), f"finding template {name}", ROUND_TIMEOUT_S
        )
        return found.seen if found is not None else None

    async def keep_as_template(self, name: str) -> TemplateSeen:
        """Make our machine that is off a template."""
        return await keep_as_template(self._yard, self._templates, name)

    async def create(self, spec: MachineSpec) -> None:
        """Clone or copy, place, configure and mark a machine, powered off; resumes what an earlier call began."""
        lock = self._creating.setdefault(spec.name, asyncio.Lock())
        try:
            async with lock:
                await create_machine(self._workshop, spec)
        finally:
            if not lock.locked():
                self._creating.pop(spec.name, None)

    async def delete(self, name: str) -> None:
        """Destroy our machine, and call off its clone; absent is success."""
        await self._clones.call_off(name)
        await delete_machine(self._yard, name)

    async def set_power(self, name: str, power: Power) -> None:
        """Bring our machine to this power state."""
        await set_power(self._yard, name, power)

    async def set_limits(self, cluster: str, cap_mhz: float, machines: Mapping[str, float]) -> int:
        """Set the pool's cap and machines' CPU limits; returns how many objects changed."""
        return await self._limits.set(cluster, cap_mhz, machines)

    async def release(self, cluster: str) -> None:
        """Remove our pool of the cluster, and our folder when it is empty."""
        await release_cluster(self._yard, cluster)

    async def aclose(self) -> None:
        """Log out."""
        if not self._session.closed:
            self._under_way.users -= 1
            self._under_way.left_at = time.monotonic()
        await self._session.aclose()


class VSphereDriver:
    """Opens sessions to vSphere."""

    name = "vsphere"
    settings: type[BaseModel] = VSphereSettings

    def __init__(self) -> None:
        self._under_way: dict[tuple[UUID, UUID], UnderWay] = {}
        """By resource and installation: a new password ends a session, and not what was begun in it."""

    def identify(self, url: str, settings: BaseModel) -> str:
        """Canonical endpoint and scope. Raises ValueError for a URL that vSphere cannot have."""
        return identify(url, VSphereSettings.model_validate(settings.model_dump()))

    async def open(self, connection: Connection, vault: Vault, clock: Clock) -> VSphereProvider:
        """Log in. Raises Rejected (auth, tls, invalid) or Unavailable."""
        try:
            settings = VSphereSettings.model_validate(dict(connection.settings))
            endpoint = parse_url(connection.url)
            trust = Trust(connection.ca_pem, parse_thumbprint(connection.thumbprint))
            trust.make_context()
        except ValidationError as error:
            raise Rejected(Cause.INVALID, _first_problem(error.errors())) from None
        except (ValueError, OSError) as error:
            raise Rejected(Cause.INVALID, f"the connection cannot be used: {error}") from None
        session = Session(
            endpoint, trust, Login(connection.username, lambda: _open_secret(connection, vault))
        )
        begun_by = (connection.resource_id, connection.installation_id)
        now = time.monotonic()
        self._under_way = {key: each for key, each in self._under_way.items() if not each.is_over(now)}
        under_way = self._under_way.setdefault(begun_by, UnderWay())
        provider = VSphereProvider(session, connection, settings, clock, under_way)
        try:
            await provider.start()
        except BaseException:
            await provider.aclose()
            raise
        return provider


def _open_secret(connection: Connection, vault: Vault) -> str:
    context = sealing_context(connection.url, connection.ca_pem, connection.thumbprint)
    try:
        return vault.open(connection.sealed_secret, context)
    except Unsealable as error:
        raise Rejected(Cause.AUTH, str(error)) from None


def _first_problem(problems: Sequence[Any]) -> str:
    """The first thing that is wrong with the settings, without the value."""
    first = problems[0]
    return f"setting {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
