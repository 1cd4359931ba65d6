"""A driver whose clouds do what a test wrote down. Found by a real entry point; strict about sessions."""

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from libs.common.clock import Clock
from libs.common.contracts.usage import HostState, Sample
from libs.common.secrets import Vault
from libs.providers.base import (
    Blocker,
    Capability,
    Cause,
    ClusterSeen,
    Connection,
    HostHardware,
    LoginRefused,
    MachineSeen,
    MachineSpec,
    MissingPrivilege,
    Power,
    ProviderError,
    TemplateSeen,
    Unavailable,
    Validation,
    sealing_context,
)
from libs.providers.registry import driver_names, find_driver


def make_sample(
    cluster: str, at: datetime, hosts: Sequence[str] = ("host-1",), cpu_mhz: float = 20_800.0
) -> Sample:
    """An idle cluster of 8-core hosts over 20 s."""
    width = len(hosts)
    return Sample(
        cluster=cluster, name=cluster.upper(), at=at, interval_s=20.0, hosts=tuple(hosts), host_names=tuple(hosts),
        states=(HostState.CONNECTED,) * width, cpu_capacity_mhz=(cpu_mhz,) * width, cpu_used_mhz=(0.0,) * width,
        cpu_ours_mhz=(0.0,) * width, cpu_limit_mhz=(0.0,) * width, memory_capacity_mib=(65_536.0,) * width,
        memory_used_mib=(0.0,) * width, memory_ours_mib=(0.0,) * width, contention_percent=(None,) * width,
        machines=(0,) * width,
    )  # fmt: skip


@dataclass
class Script:
    """One cloud, by its host name in the URL."""

    password: str = "correct horse"
    others: dict[str, str] = field(default_factory=dict)
    """Passwords of further accounts, by user name; every other user has the first one."""
    instance_id: str = "instance-1"
    refuse: ProviderError | Exception | None = None
    """What every login raises."""
    hang: bool = False
    """Logins never end."""
    samples: list[Sample] = field(default_factory=list)
    deepest: timedelta | None = None
    """Asked for more than this before the newest sample, it does not answer in time."""
    no_facts: ProviderError | asyncio.Event | None = None
    """What `validate` and `hardware` raise, or wait for."""
    gpus: int | None = None
    asked: list[datetime | None] = field(default_factory=list)
    """From when on samples were wanted, of every question."""
    missing: tuple[MissingPrivilege, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    opened: int = 0
    closed: int = 0
    logins: list[tuple[str, str]] = field(default_factory=list)
    """User name and password of every try."""


class ScriptedSettings(BaseModel):
    """A scope, and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    scope: str = "all"


class ScriptedProvider:
    """A session; used after its end, it says so."""

    capabilities = frozenset({Capability.BACKFILL, Capability.HOSTS_VISIBLE})

    def __init__(self, script: Script) -> None:
        self._script = script
        self._open = True

    async def validate(self) -> Validation:
        await self._learn()
        newest = {sample.cluster: sample for sample in self._script.samples}
        clusters = tuple(
            ClusterSeen(
                one.cluster, one.name, len(one.hosts), 8 * len(one.hosts), sum(one.cpu_capacity_mhz), 0.0
            )
            for one in newest.values()
        )
        return Validation(
            "Scripted",
            "1",
            self._script.instance_id,
            clusters,
            self._script.missing,
            ("a warning",),
            self._script.blockers,
        )

    async def sample(self, since: datetime | None) -> Sequence[Sample]:
        self._check()
        self._script.asked.append(since)
        samples = sorted(self._script.samples, key=lambda one: one.at)
        newest = samples[-1].at if samples else None
        deepest = self._script.deepest
        if deepest is not None and since is not None and newest is not None and since < newest - deepest:
            raise Unavailable(Cause.TIMEOUT, "no answer in time")
        if since is None:
            return list({one.cluster: one for one in samples}.values())
        return [one for one in samples if one.at > since]

    async def hardware(self) -> Sequence[HostHardware]:
        await self._learn()
        hosts = sorted({host for sample in self._script.samples for host in sample.hosts})
        return [HostHardware(host, cores=8, gpus=self._script.gpus) for host in hosts]

    async def machines(self) -> Sequence[MachineSeen]:
        raise AssertionError("nobody asked for machines here")

    async def find_template(self, name: str) -> TemplateSeen | None:
        raise AssertionError(name)

    async def create(self, spec: MachineSpec) -> None:
        raise AssertionError(spec.name)

    async def delete(self, name: str) -> None:
        raise AssertionError(name)

    async def set_power(self, name: str, power: Power) -> None:
        raise AssertionError(name)

    async def set_limits(self, cluster: str, cap_mhz: float, machines: Mapping[str, float]) -> int:
        raise AssertionError(cluster)

    async def release(self, cluster: str) -> None:
        raise AssertionError(cluster)

    async def aclose(self) -> None:
        assert self._open, "the session has ended"
        self._open = False
        self._script.closed += 1

    async def _learn(self) -> None:
        self._check()
        if isinstance(self._script.no_facts, ProviderError):
            raise self._script.no_facts
        if self._script.no_facts is not None:
            await self._script.no_facts.wait()

    def _check(self) -> None:
        assert self._open, "the session has ended"
        if self._script.refuse is not None:
            raise self._script.refuse


class ScriptedDriver:
    """`https://<cloud>/...`, where the cloud's script was put into `clouds`."""

    name = "scripted"
    settings: type[BaseModel] = ScriptedSettings

    def __init__(self) -> None:
        self.clouds: dict[str, Script] = {}

    def identify(self, url: str, settings: BaseModel) -> str:
        assert isinstance(settings, ScriptedSettings)
        parts = urlsplit(url)
        if parts.scheme != "https":
            raise ValueError("A scripted cloud's URL begins with https.")
        return f"{(parts.hostname or '').lower()}/{settings.scope}"

    async def open(self, connection: Connection, vault: Vault, clock: Clock) -> ScriptedProvider:
        context = sealing_context(connection.url, connection.ca_pem, connection.thumbprint)
        password = vault.open(connection.sealed_secret, context)
        script = self.clouds[urlsplit(connection.url).hostname or ""]
        script.logins.append((connection.username, password))
        if script.hang:
            await asyncio.Event().wait()
        if script.refuse is not None:
            raise script.refuse
        if password != script.others.get(connection.username, script.password):
            raise LoginRefused(Cause.AUTH, "wrong password")
        script.opened += 1
        return ScriptedProvider(script)


driver = ScriptedDriver()


@contextmanager
def installed(folder: Path) -> Iterator[ScriptedDriver]:
    """The driver, installed as any third party's would be."""
    metadata = folder / "scripted_cloud-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted-cloud\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        f"[tides.providers]\nscripted = {__name__}:driver\n", encoding="utf-8"
    )
    sys.path.insert(0, str(folder))
    _forget_drivers()
    try:
        yield driver
    finally:
        sys.path.remove(str(folder))
        driver.clouds.clear()
        _forget_drivers()


def _forget_drivers() -> None:
    driver_names.cache_clear()
    find_driver.cache_clear()
