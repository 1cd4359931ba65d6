"""What can be hit: processes by their pid files, systemd's units, Compose's containers, Kubernetes' pods."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from services.cli.chaos.blows import Victim
from services.cli.client import Failed

STOP_WITHIN_S = 45.0
"""An orderly stop takes 20 s at most; systemd's and Compose's own patience is 30 to 40 s."""
COMMAND_WITHIN_S = 180.0
HEALTHY_WITHIN_S = 150.0
LOOK_EVERY_S = 0.5
SUPERVISED_WITHIN_S = 2.0
"""Whoever watches over a process has started it again by then, or nobody does."""
_LAUNCH = 'cd "$1" && out=$2 err=$3 && shift 3 && { setsid "$@" </dev/null >>"$out" 2>>"$err" & echo $!; }'
"""It outlives us, our Ctrl-C is not its, and it is nobody's child."""
PARTS = ("postgres", "rabbitmq")
"""Containers of Compose that are no service of ours."""


@dataclass
class ByPid:
    """A process that wrote its number into a file. It is started again as it was: arguments, environment, output."""

    file: Path
    argv: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    folder: str = ""
    outputs: list[str] = field(default_factory=list)

    def remember(self) -> None:
        """How it was started. Raises Failed where nothing of the kind runs, or it belongs to another user."""
        try:
            process = self._process()
            self.argv, self.environment, self.folder = process.cmdline(), process.environ(), process.cwd()
            self.outputs = [os.path.realpath(f"/proc/{process.pid}/fd/{number}") for number in (1, 2)]
        except (psutil.Error, OSError, ValueError) as error:
            raise Failed(f"{self.file}: no process of ours runs by it ({type(error).__name__})") from None
        if "run" not in self.argv:
            raise Failed(f"{self.file}: that is no `tides run`: {' '.join(self.argv[:4])}")

    async def kill(self) -> None:
        """kill -9."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """An orderly stop; by force where that takes too long."""
        await self._end(signal.SIGTERM)

    async def start(self) -> None:
        """Unless somebody has done so."""
        await asyncio.sleep(SUPERVISED_WITHIN_S)
        if self._living() is not None:
            return
        words = ("sh", "-c", _LAUNCH, "sh", self.folder, *map(_sink, self.outputs), *self.argv)
        pid = (await run(words, environment=self.environment)).strip()
        try:
            self.file.write_text(f"{pid}\n", encoding="ascii")
        except OSError as error:
            raise Failed(f"{self.file}: {error.strerror}; process {pid} was started") from None

    async def _end(self, number: signal.Signals) -> None:
        process = self._living()
        if process is None:
            return
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            try:
                async with asyncio.timeout(STOP_WITHIN_S):
                    while not _has_ended(process):  # noqa: ASYNC110 - another process's end announces itself to nobody
                        await asyncio.sleep(0.1)
            except TimeoutError:
                process.kill()

    def _process(self) -> psutil.Process:
        return psutil.Process(int(self.file.read_text(encoding="ascii")))

    def _living(self) -> psutil.Process | None:
        """Who has the file's number, if that is still what was remembered: numbers are given to others."""
        with suppress(psutil.Error, OSError, ValueError):
            found = self._process()
            if not _has_ended(found) and found.cmdline() == self.argv:
                return found
        return None


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _sink(path: str) -> str:
    """Where it wrote before, if that is a file; a pipe has lost its other end."""
    return path if Path(path).is_file() else os.devnull


@dataclass(frozen=True)
class ByCommand:
    """Something that a program kills, stops and starts by its name."""

    killing: Sequence[str]
    stopping: Sequence[str]
    starting: Sequence[str]

    async def kill(self) -> None:
        """By force."""
        await run(self.killing)

    async def stop(self) -> None:
        """In order."""
        await run(self.stopping)

    async def start(self) -> None:
        """And ready, as far as the program waits for that."""
        await run(self.starting)


@dataclass(frozen=True)
class Container:
    """One of Compose's."""

    name: str

    async def kill(self) -> None:
        """By force; one that lies already, or is just being started again, need not be."""
        try:
            await run(("docker", "kill", self.name))
        except Failed:
            if (await self._state())[0] == "running":
                raise

    async def stop(self) -> None:
        """In order."""
        await run(("docker", "stop", "-t", "30", self.name))

    async def start(self) -> None:
        """And wait until it is healthy: `docker start` does not. Raises Failed."""
        await run(("docker", "start", self.name))
        loop = asyncio.get_running_loop()
        end = loop.time() + HEALTHY_WITHIN_S
        while (state := await self._state()) not in _READY:
            if loop.time() >= end:
                raise Failed(f"{self.name} is {' and '.join(state)} after {HEALTHY_WITHIN_S:.0f} s")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _state(self) -> tuple[str, ...]:
        """Its status, and its health where it has any."""
        form = "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}"
        told = await run(("docker", "inspect", "--type", "container", "--format", form, self.name))
        return tuple(told.split())


_READY = (("running",), ("running", "healthy"), ("running", "none"))


@dataclass(frozen=True)
class Pod:
    """One of a Deployment's pods, whichever stands at its place just then: the Deployment makes another."""

    kubectl: Sequence[str]
    deployment: str
    labels: str
    place: int

    async def kill(self) -> None:
        """Without grace."""
        await self._delete("--grace-period=0", "--force")

    async def stop(self) -> None:
        """With the grace that its template gives."""
        await self._delete()

    async def start(self) -> None:
        """Wait until as many are ready as there should be."""
        await run([*self.kubectl, "rollout", "status", self.deployment, "--timeout=150s"])

    async def _delete(self, *how: str) -> None:
        pods = (await run([*self.kubectl, "get", "pods", "-l", self.labels, "-o", "name"])).split()
        if pods:
            await run([*self.kubectl, "delete", sorted(pods)[self.place % len(pods)], "--wait=true", *how])


async def by_pid_files(folder: Path) -> dict[str, Victim]:
    """Every `NAME.pid` of a folder."""
    found = {path.stem: ByPid(path) for path in sorted(folder.glob("*.pid"))}
    for victim in found.values():
        victim.remember()
    return dict(found)


async def by_systemd() -> dict[str, Victim]:
    """Every running `tides@...` of this machine."""
    words = ("systemctl", "list-units", "tides@*.service", "--state=active", "--plain", "--no-legend")
    units = [line.split()[0] for line in (await run(words)).splitlines() if line.strip()]
    return {
        unit.removeprefix("tides@").removesuffix(".service"): ByCommand(
            # Of all its processes, which is what is meant where nothing is said: the option for it was renamed.
            ("systemctl", "kill", "-s", "SIGKILL", unit),
            ("systemctl", "stop", unit),
            ("systemctl", "start", unit),
        )
        for unit in units
    }


async def by_compose(project: str) -> dict[str, Victim]:
    """Every running container of ours in a project, each replica for itself; none that somebody runs a command in."""
    form = '{{.Names}}\t{{.Label "com.docker.compose.service"}}'
    labels = (f"com.docker.compose.project={project}", "com.docker.compose.oneoff=False")
    filters = [word for label in labels for word in ("--filter", f"label={label}")]
    rows = (await run(("docker", "ps", *filters, "--format", form))).splitlines()
    named = [line.split("\t") for line in rows]
    return {
        name.removeprefix(f"{project}-"): Container(name) for name, service in named if service not in PARTS
    }


async def by_kubernetes(namespace: str, release: str) -> dict[str, Victim]:
    """A victim for every replica of every Deployment of a release."""
    kubectl = ("kubectl", "-n", namespace)
    ours = f"app.kubernetes.io/name=tides,app.kubernetes.io/instance={release}"
    told = json.loads(await run([*kubectl, "get", "deployments", "-l", ours, "-o", "json"]))
    found: dict[str, Victim] = {}
    for each in told["items"]:
        matching: Mapping[str, str] = each["spec"]["selector"]["matchLabels"]
        labels = ",".join(f"{name}={value}" for name, value in matching.items())
        name = each["metadata"]["name"]
        for place in range(each["spec"].get("replicas", 1)):
            found[f"{name}-{place}"] = Pod(kubectl, f"deployment/{name}", labels, place)
    return found


async def run(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """What a program answers. Raises Failed with its last line, or where there is no such program."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is ours: what is begun is ended
        )  # fmt: skip
    except FileNotFoundError:
        raise Failed(f"{words[0]} is not installed here") from None
    try:
        async with asyncio.timeout(COMMAND_WITHIN_S):
            said, failed = await process.communicate()
    except TimeoutError:
        process.kill()
        raise Failed(f"{' '.join(words[:4])}: no answer within {COMMAND_WITHIN_S:.0f} s") from None
    if process.returncode != 0:
        lines = (failed or said).decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise Failed(f"{' '.join(words[:4])}: {lines[-1][:300]}")
    return said.decode(errors="replace")
