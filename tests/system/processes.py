"""Services as separate operating-system processes, as operators run them: environment in, JSON logs out."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp

from libs.common import personal_tokens
from libs.common.auth import Principal, Role, Signer, generate_signing_keys
from libs.common.secrets import fresh_key
from tests.support import until
from tools.parts.slots import free_port

STOP_WITHIN_S = 30.0
READY_WITHIN_S = 120.0


@dataclass
class Process:
    """One `tides run ...`, which can be killed and started again at the same address."""

    name: str
    services: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    code: Path | None = None
    """Where the program is that it runs; None: this one."""
    port: int = field(default_factory=free_port)
    process: "asyncio.subprocess.Process | None" = None

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        with self.log.open("ab") as sink:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "services.cli", "run", *self.services),
                cwd=self.code,  # which is where `-m` looks first
                env={**os.environ, **self.environment, "TIDES_PORT": str(self.port)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,  # of a machine that shares by sessions, each gets its own share
            )
        await until(self.is_ready, timeout=READY_WITHIN_S, what=f"{self.name} ready; its log is {self.log}")

    async def is_ready(self) -> bool:
        """Whether it serves and reaches its database. Fails at once if it has ended."""
        assert self.is_running, f"{self.name} ended: {self.tail()}"
        await asyncio.sleep(0.1)  # each look costs the two cores that the process starts on
        timeout = aiohttp.ClientTimeout(total=5)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.get(f"{self.url}/readyz") as answer,
            ):
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.returncode is None

    async def kill(self) -> None:
        """kill -9."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """An orderly stop."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(number)
        async with asyncio.timeout(STOP_WITHIN_S):
            await self.process.wait()

    def facts(self, event: str | None = None) -> list[dict[str, Any]]:
        """Log lines, or those of one event."""
        lines = (line for line in self.log.read_text(errors="replace").splitlines() if line.startswith("{"))
        return [fact for fact in map(json.loads, lines) if event in (None, fact.get("event"))]

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]


@dataclass
class Deployment:
    """A whole installation: processes that share a database, a bus, keys and an identity."""

    folder: Path
    database_url: str
    bus_url: str
    code: Path | None = None
    """The program that new processes run; None: this one."""
    processes: dict[str, Process] = field(default_factory=dict)
    particular: dict[str, dict[str, str]] = field(default_factory=dict)
    """What single processes are told otherwise than all."""
    installation_id: str = field(default_factory=lambda: str(uuid4()))
    organisation_id: Any = field(default_factory=uuid4)

    def __post_init__(self) -> None:
        self._private, self._public = generate_signing_keys()
        self._sealing = f"t1:{fresh_key()}"
        self._personal = personal_tokens.fresh()
        self._signer = Signer(self._private)

    @property
    def environment(self) -> dict[str, str]:
        """What every process is told."""
        return {
            "TIDES_DATABASE_URL": self.database_url,
            "TIDES_BUS_URL": self.bus_url,
            "TIDES_SEALING_KEYS": self._sealing,
            "TIDES_SIGNING_KEY": self._private,
            "TIDES_BOOTSTRAP_ADMIN_TOKEN": self._personal,
            "TIDES_VERIFY_KEYS": self._public,
            "TIDES_INSTALLATION_ID": self.installation_id,
            "TIDES_POOL_SIZE": "3",
            "PYTHONUNBUFFERED": "1",
        }

    async def start(self, name: str, *services: str) -> Process:
        """Start a process that runs these services (by default the one it is named after)."""
        log = self.folder / f"{name}.log"
        environment = {**self.environment, **self.particular.get(name, {})}
        process = Process(name, services or (name,), environment, log, self.code)
        self.processes[name] = process
        await process.start()
        return process

    async def start_all(self, services: Mapping[str, Sequence[str]]) -> None:
        """Start processes side by side: names, and the services that each runs."""
        await asyncio.gather(*(self.start(name, *each) for name, each in services.items()))

    async def stop(self) -> None:
        """Stop every process in order."""
        await asyncio.gather(*(process.stop() for process in self.processes.values()), return_exceptions=True)

    def token(self, role: Role = Role.ADMIN) -> str:
        """A fresh access token."""
        return self._signer.sign(Principal(uuid4(), "tester", role, self.organisation_id, uuid4()))

    async def log_in(self) -> str:
        """An access token of the first administrator, from identity."""
        given = await self.ask("identity", "POST", "/v1/tokens/exchange", {"token": self._personal})
        return str(given["access_token"])

    async def ask(
        self,
        process: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        expect: Sequence[int] = (200, 201, 202),
        token: str | None = None,
    ) -> Any:
        """One REST call, by default as an administrator; an unexpected status fails with the answer."""
        headers = {"Authorization": f"Bearer {token or self.token()}"}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http,
            http.request(method, self.of(process).url + path, json=body, headers=headers) as answer,
        ):
            text = await answer.text()
            assert answer.status in expect, f"{method} {path}: {answer.status} {text}"
            return json.loads(text) if text else None

    def of(self, service: str) -> Process:
        """A running process of this service (or of this name)."""
        return next(
            process
            for process in self.processes.values()
            if process.is_running and (process.name == service or service in process.services)
        )
