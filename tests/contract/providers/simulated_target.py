"""A simulated cloud as a target of the conformance suite, on a clock that the test moves."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from libs.common.clock import SteppedClock
from libs.common.secrets import KEY_BYTES, Vault
from libs.providers.base import Connection, MachineSpec, Mark, Provider, sealing_context
from libs.providers.simulated import Cloud, SimulatedSettings
from libs.providers.simulated.driver import SimulatedDriver
from libs.providers.simulated.session import SimulatedProvider

PASSWORD = "correct horse"


class HandClock(SteppedClock):
    """Time that the test moves; sleeping moves it too."""

    def pass_time(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        self.pass_time(seconds)


class SimulatedTarget:
    """A small simulated cloud whose clock stands still until the test moves it."""

    cluster = "domain-c1"
    template = "boinc-worker"

    def __init__(self, url: str, settings: SimulatedSettings | None = None) -> None:
        self.url = url
        self.clock = HandClock(datetime(2026, 3, 4, 12, 0, 7, tzinfo=UTC))
        self.vault = Vault({"k1": b"k" * KEY_BYTES})
        self.driver = SimulatedDriver()
        self.installation_id = uuid4()
        self.cloud: Cloud = self.driver.create_cloud(
            url, PASSWORD, settings or SimulatedSettings(scenario="small"), self.clock
        )
        self.provider: Provider

    def make_spec(
        self, name: str | None = None, host: str | None = None, template: str | None = None
    ) -> MachineSpec:
        machine_id = uuid4()
        return MachineSpec(
            name=f"tides-{machine_id}" if name is None else name,
            mark=Mark(self.installation_id, machine_id),
            cluster=self.cluster,
            host=host,
            template=template or self.template,
            vcpus=2,
            memory_mib=2048,
            disk_gib=8.0,
            limit_mhz=1500.0,
            user_data="#cloud-config\n",
        )

    async def open(self, password: str) -> Provider:
        return await self.log_in(password)

    async def log_in(
        self, password: str = PASSWORD, settings: dict[str, Any] | None = None
    ) -> SimulatedProvider:
        """A session as of another process: with settings of its own."""
        return await self.driver.open(self.connection(password, settings), self.vault, self.clock)

    def connection(self, password: str, settings: dict[str, Any] | None = None) -> Connection:
        """Where and as whom."""
        sealed = self.vault.seal(password, sealing_context(self.url, None, None))
        return Connection(uuid4(), self.installation_id, self.url, "tides", sealed, settings=settings or {})

    async def set_owner_load(self, host: str, fraction: float) -> None:
        self.cloud.control.set_owner_load(host, fraction)

    async def settle(self) -> None:
        self.clock.pass_time(120)

    async def add_foreign(self, name: str) -> None:
        self.cloud.control.add_foreign(name, self.cluster)

    async def exists(self, name: str) -> bool:
        truth = self.cloud.truth()
        return name in truth.foreign or name in {machine.name for machine in truth.machines}
