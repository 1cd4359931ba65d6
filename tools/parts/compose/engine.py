"""A Docker engine: the one that runs here, else a private one, of which the machine's firewall sees one rule."""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from tools.parts import PartMissing, debian

PLACES = 8
POOL = "10.213.0.0/16"
START_WITHIN_S, STOP_WITHIN_S = 60.0, 60.0
COMMAND_WITHIN_S = 900.0


class DockerEngine:
    """Whoever answers at DOCKER_HOST or at the usual socket; a private one keeps its layers between runs."""

    def __init__(self) -> None:
        self.host = ""
        self._place: tuple[Path, IO[str]] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None

    @property
    def is_private(self) -> bool:
        """Whether it was started here, and ends with `close`."""
        return self._place is not None

    @property
    def environment(self) -> dict[str, str]:
        """What docker and docker-compose are told, so that they speak to this engine."""
        said = {**os.environ, "DOCKER_BUILDKIT": "0"}
        return {**said, "DOCKER_HOST": self.host} if self.host else said

    def start(self) -> None:
        """Find one, else start one; call it from the main thread. Raises PartMissing with what to do."""
        if shutil.which("docker") and self._answers():
            return
        if os.geteuid() != 0:
            raise PartMissing(
                "No Docker engine answers, and only root may start one: start it, or set DOCKER_HOST."
            )
        if not all(map(shutil.which, ("dockerd", "docker"))) and not debian.install(["docker.io"]):
            raise PartMissing("There is no Docker here, and no apt-get to install it with: install it.")
        self._place = folder, _ = _claim()
        running = _running_folder(folder)
        self.host = f"unix://{running / 'docker.sock'}"
        _end_leftovers(folder, running)
        _let_talk(running)
        running.mkdir()
        (running / "daemon.json").write_text("{}")
        with (running / "dockerd.log").open("wb") as sink:
            self._daemon = subprocess.Popen(
                _argv(folder, running, self.host),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        self._until_ready(running / "dockerd.log")
        self._empty()

    def close(self) -> None:
        """End a private one and whatever ran in it; images stay for the next time."""
        if self._place is None or self._daemon is None:
            return
        folder, lock = self._place
        with suppress(PartMissing):
            self._empty()
        self._daemon.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._daemon.wait(STOP_WITHIN_S)
        _end_leftovers(folder, _running_folder(folder))
        self._daemon.wait()
        lock.close()
        self._place, self.host = None, ""

    def run(
        self,
        *words: str,
        feed: "IO[bytes] | None" = None,
        more: Mapping[str, str] | None = None,
        within_s: float = COMMAND_WITHIN_S,
    ) -> str:
        """What docker answers, or another program that is named whole. Raises PartMissing with its last lines."""
        command = words if words[0].startswith("/") else ("docker", *words)
        done = subprocess.run(
            command,
            env={**self.environment, **(more or {})},
            stdin=feed or subprocess.DEVNULL,
            capture_output=True,
            timeout=within_s,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace").strip()
            raise PartMissing(f"{Path(command[0]).name} {' '.join(command[1:4])} failed: {said[-3000:]}")
        return done.stdout.decode(errors="replace")

    def _answers(self) -> bool:
        with suppress(PartMissing, subprocess.TimeoutExpired):
            return bool(self.run("version", "--format", "{{.Server.Version}}", within_s=10))
        return False

    def _until_ready(self, log: Path) -> None:
        assert self._daemon is not None
        end = time.monotonic() + START_WITHIN_S
        while not self._answers():
            if self._daemon.poll() is not None or time.monotonic() > end:
                said = log.read_text(errors="replace").strip().splitlines()[-1:]
                self.close()
                raise PartMissing(f"A private dockerd did not start: {' '.join(said)[-600:]}")
            time.sleep(0.2)

    def _empty(self) -> None:
        """No container, network or volume, whoever left it."""
        if found := self.run("ps", "-aq").split():
            self.run("rm", "-f", *found)
        self.run("network", "prune", "-f")
        if found := self.run("volume", "ls", "-q").split():
            self.run("volume", "rm", "-f", *found)


def _argv(folder: Path, running: Path, host: str) -> Sequence[str]:
    return [
        # Whoever kills us would leave it: it is told to stop then.
        *("setpriv", "--pdeathsig", "TERM", "dockerd", "--config-file", str(running / "daemon.json")),
        *("--data-root", str(folder), "--exec-root", str(running / "exec"), "-H", host),
        *("--pidfile", str(running / "docker.pid")),
        # Ports are published by its proxy, and builds use the machine's network: it need not write to the firewall.
        *("--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false", "--bridge=none"),
        *("--default-address-pool", f"base={POOL},size=24", "--log-level", "warn"),
    ]


def _claim() -> tuple[Path, IO[str]]:
    """The first data folder in the cache that nobody uses, and its lock."""
    for number in range(PLACES):
        folder = debian.cache_folder() / f"docker-{number}"
        lock = folder.with_suffix(".lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        folder.mkdir(exist_ok=True)
        return folder, lock
    raise PartMissing(f"All {PLACES} folders for Docker in {debian.cache_folder()} are in use.")


def _running_folder(folder: Path) -> Path:
    """Where sockets lie: their paths must be short."""
    mark = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"tides-docker-{mark}"


def _let_talk(running: Path, word: str = "-I") -> bool:
    """Containers of a network with each other: where another Docker was, the firewall forbids what it does not know."""
    rule = ("FORWARD", "-s", POOL, "-d", POOL, "-m", "comment", "--comment", running.name, "-j", "ACCEPT")
    done = subprocess.run(["iptables", "-w", "5", word, *rule], capture_output=True, check=False)
    return done.returncode == 0


def _end_leftovers(*folders: Path) -> None:
    """Processes that were told these folders, what they started, mounts, the rule; then the last folder goes."""
    marks = tuple(str(folder) for folder in folders)
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if any(word == mark or word.startswith(f"{mark}/") for word in words for mark in marks):
                for each in (*process.children(recursive=True), process):
                    with suppress(psutil.Error):
                        each.kill()
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith(tuple(f"{mark}/" for mark in marks)):
            subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
    while shutil.which("iptables") and _let_talk(folders[-1], "-D"):
        pass
    shutil.rmtree(folders[-1], ignore_errors=True)
