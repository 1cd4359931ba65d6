"""Folders for throw-away servers. One user at a time; what a killed run left in one is ended first."""

import fcntl
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from tools.parts import PartMissing

SLOTS = 64


class Slot:
    """A claimed, empty folder and the processes that were started in it."""

    def __init__(self, folder: Path, lock: IO[str], account: pwd.struct_passwd | None) -> None:
        self.folder = folder
        self._lock = lock
        self._account = account
        self._processes: list[subprocess.Popen[bytes]] = []

    def folder_of(self, name: str) -> Path:
        """A subfolder that the slot's processes may write."""
        path = self.folder / name
        path.mkdir(exist_ok=True)
        self._give(path)
        return path

    def write(self, name: str, text: str) -> Path:
        """A file that the slot's processes may read and write."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        self._give(path)
        return path

    def spawn(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Start a process of its own session; its output goes to `<name>.log`, which is begun anew."""
        account = self._account
        with (self.folder / f"{name}.log").open("wb") as sink:
            process = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
            )
        self._processes.append(process)
        self.record(process.pid)
        return process

    def record(self, pid: int) -> None:
        """Note a process of the slot, so that it is ended even when its starter is killed."""
        with _pid_file(self.folder).open("a") as pids, suppress(psutil.NoSuchProcess):
            pids.write(f"{pid} {psutil.Process(pid).create_time()}\n")

    def output_of(self, name: str) -> str:
        """What the process said so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def release(self) -> None:
        """End everything at once and remove the folder. Calling it again does nothing."""
        if self._lock.closed:
            return
        for process in self._processes:
            kill_session(process)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _give(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)


def claim(part: str, account: str | None = None) -> Slot:
    """The first free slot of `part`, emptied. Root's processes there run as `account`, where it exists."""
    root = Path(tempfile.gettempdir()) / f"tides-parts-{os.getuid()}"
    root.mkdir(mode=0o755, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != os.getuid():
        raise PartMissing(f"{root} is somebody else's: set TMPDIR to a folder of your own.")
    for number in range(SLOTS):
        lock = (root / f"{part}-{number}.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return _open_slot(root / f"{part}-{number}", lock, _lent(account))
    raise PartMissing(f"All {SLOTS} folders for {part} in {root} are in use.")


def kill_session(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to the process and to all that it started in its session's group; waits for the process."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """A port below the ephemeral range, so that no outgoing connection takes it while a server restarts.

    Nobody else who asks here gets it for as long as this process lives: a server may be down for a while.
    """
    for _ in range(500):
        port = random.randrange(20_000, 32_000)
        if not _reserve(port):
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise PartMissing("No port between 20000 and 32000 is free on 127.0.0.1.")


def _reserve(port: int) -> bool:
    """Whether nobody had it; the lock ends with this process."""
    folder = Path(tempfile.gettempdir()) / f"tides-ports-{os.geteuid()}"
    folder.mkdir(exist_ok=True)
    lock = os.open(folder / str(port), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    return True


def _open_slot(folder: Path, lock: IO[str], account: pwd.struct_passwd | None) -> Slot:
    _end_leftovers(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    slot = Slot(folder, lock, account)
    slot._give(folder)
    return slot


def _lent(account: str | None) -> pwd.struct_passwd | None:
    if account is None or os.geteuid() != 0:
        return None
    for name in (account, "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    return None


def _pid_file(folder: Path) -> Path:
    return folder / "pids"


def _end_leftovers(folder: Path) -> None:
    path = _pid_file(folder)
    for line in path.read_text().splitlines() if path.exists() else []:
        pid, created = line.split()
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if abs(psutil.Process(int(pid)).create_time() - float(created)) < 1:
                os.killpg(int(pid), signal.SIGKILL)
