"""A static VM as its operator sees it: a small Debian whose first process is systemd, in namespaces of this machine.

It shares this machine's network, so that stores on 127.0.0.1 are reached; it sees no other file, process or group.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tools.parts import PartMissing, debian
from tools.parts.compose.images import AUTHORITIES, SUITE

BOOT = Path(__file__).parent / "boot.sh"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "ca-certificates")
"""What a Debian of a cloud has; README.md asks for no more."""
CONTROLLERS = frozenset(("cpu", "cpuacct", "cpu,cpuacct", "memory", "blkio", "devices", "pids"))
PLAIN = frozenset(("rw", "ro", "relatime", "nosuid", "nodev", "noexec"))
"""Options of any mount."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOTS_WITHIN_S, ENDS_WITHIN_S, COMMAND_WITHIN_S = 30.0, 60.0, 900.0


class SystemdMachine:
    """One machine. What it writes is in its folder and goes with `close`; `/srv/shared` is alike on all of them."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder / name
        self._groups: list[Path] = []
        self._leader: subprocess.Popen[bytes] | None = None
        (folder / "shared").mkdir(exist_ok=True)
        for part in ("upper", "work", "root"):
            (self._folder / part).mkdir(parents=True)

    def start(self) -> None:
        """Boot, also after `stop`; it ends with the thread that calls. Raises PartMissing with what was refused."""
        if os.geteuid() != 0:
            raise PartMissing("Only root may boot a machine in namespaces.")
        base = self._folder / "base"
        if not base.is_symlink():
            base.symlink_to(ensure_debian())
        hierarchies = _hierarchies()
        self._groups = [Path(path) / f"tides-{self.name}-{os.getpid()}" for _, _, path in hierarchies]
        lines = "".join(f"{' '.join(each)}\n" for each in hierarchies)
        (self._folder / "hierarchies").write_text(lines)
        for group in self._groups:
            group.mkdir(exist_ok=True)
        join = " && ".join(f"echo 0 > '{group}/cgroup.procs'" for group in self._groups)
        apart = "unshare -m -p -f -u -i -C --propagation private --kill-child"
        words = f"{join} && exec {apart} sh '{BOOT}' '{self._folder}' '{self.name}'"
        with (self._folder / "boot.log").open("wb") as sink:
            self._leader = subprocess.Popen(
                ("setpriv", "--pdeathsig", "KILL", "sh", "-c", words),
                stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
            )  # fmt: skip
        self._until_up()

    def run(self, *words: str, feed: str = "", within_s: float = COMMAND_WITHIN_S) -> str:
        """What a command of root's answers inside. Raises PartMissing with its last lines."""
        done = self.attempt(*words, feed=feed, within_s=within_s)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()
            raise PartMissing(f"{self.name}: {' '.join(words[:4])} failed: {said[-3000:]}")
        return done.stdout

    def attempt(
        self, *words: str, feed: str = "", within_s: float = COMMAND_WITHIN_S
    ) -> "subprocess.CompletedProcess[str]":
        """The same, however it ends."""
        inside = ("nsenter", "-t", str(self._first()), "-m", "-p", "-u", "-i", "-C", "-r", "-w")
        alone = ("env", "-i", "TERM=dumb", "HOME=/root", "LANG=C.UTF-8", f"PATH={PATH}")
        return subprocess.run(
            (*inside, *alone, *words),
            input=feed, capture_output=True, text=True, timeout=within_s, check=False,
        )  # fmt: skip

    def put(self, source: Path, names: Sequence[str], target: str) -> None:
        """Files and folders of `source`, below an absolute path there."""
        inside = ("nsenter", "-t", str(self._first()), "-m", "-r", "-w")
        subprocess.run((*inside, "mkdir", "-p", target), check=True, timeout=COMMAND_WITHIN_S)
        pack = ("tar", "-C", str(source), "--exclude", "__pycache__", "-c", *names)
        unpack = (*inside, "tar", "-C", target, "-x", "--no-same-owner")
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packed:
            subprocess.run(unpack, stdin=packed.stdout, check=True, timeout=COMMAND_WITHIN_S)

    def stop(self) -> float:
        """Power off in order; after how many seconds it was off."""
        assert self._leader is not None
        began = time.monotonic()
        self.attempt("systemctl", "poweroff")
        with suppress(subprocess.TimeoutExpired):
            self._leader.wait(ENDS_WITHIN_S)
        return time.monotonic() - began

    def close(self) -> None:
        """Off at once, and nothing is left."""
        if self._leader is not None:
            with suppress(ProcessLookupError):
                self._leader.kill()
            self._leader.wait()
        for group in self._groups:
            _remove(group)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _until_up(self) -> None:
        end = time.monotonic() + BOOTS_WITHIN_S
        while time.monotonic() < end:
            assert self._leader is not None
            if self._leader.poll() is not None:
                break
            with suppress(PartMissing, subprocess.SubprocessError):
                if self.attempt("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"):
                    return
            time.sleep(0.2)
        said = (self._folder / "boot.log").read_text(errors="replace").strip()
        raise PartMissing(f"systemd did not boot in namespaces here: {said[-600:]}")

    def _first(self) -> int:
        """The number that the machine's first process has on this one."""
        assert self._leader is not None
        children = Path(f"/proc/{self._leader.pid}/task/{self._leader.pid}/children")
        with suppress(OSError):
            if found := children.read_text().split():
                return int(found[0])
        raise PartMissing(f"{self.name} does not run")


def ensure_debian() -> Path:
    """A Debian with systemd, made by debootstrap at the first time (a minute) and kept; nobody writes to it."""
    return debian.kept(f"systemd-{SUITE}", _make_debian)


def _make_debian(folder: Path) -> None:
    program = debian.find_debootstrap()
    half = folder.with_suffix(".new")
    shutil.rmtree(half, ignore_errors=True)
    words = (program, "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(half))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PartMissing(f"debootstrap failed: {(done.stdout + done.stderr).strip()[-600:]}")
    for path in (AUTHORITIES, Path("/etc/resolv.conf"), Path("/etc/hosts")):
        shutil.copyfile(path, half / path.relative_to("/"))
    # pip trusts whom this machine trusts.
    (half / "etc/pip.conf").write_text(f"[global]\ncert = {AUTHORITIES}\n")
    half.rename(folder)


def _hierarchies() -> list[tuple[str, str, str]]:
    """Type, options and mount point of the cgroups that systemd asks for."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, path, kind, options, *_ = line.split()
        named = [
            word
            for word in options.split(",")
            if word not in ("rw", "ro", "relatime", "nosuid", "nodev", "noexec")
        ]
        own = ",".join(named)
        if kind == "cgroup2":
            found.append((kind, "rw", path))
        elif kind == "cgroup" and (own in CONTROLLERS or own == "name=systemd"):
            found.append((kind, f"none,{own}" if own == "name=systemd" else own, path))
    if not found:
        raise PartMissing("No cgroup hierarchy is mounted here: systemd cannot run.")
    return found


def _remove(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        for _ in range(50):  # the last process goes a moment after its parent
            with suppress(OSError):
                Path(folder).rmdir()
                break
            time.sleep(0.02)
