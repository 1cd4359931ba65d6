"""Debian's packages: installed where root is at hand, else unpacked into the cache of the user."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tools.parts import PartMissing


def cache_folder() -> Path:
    """Where built and unpacked parts stay between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "tides"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def install(packages: Sequence[str]) -> bool:
    """Install with apt-get; False for anybody but root. Raises PartMissing when it fails."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    with (cache_folder() / "apt.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _run(["apt-get", "update"], packages)
        _run(["apt-get", "install", "-y", "--no-install-recommends", *packages], packages)
    return True


def find_debootstrap() -> str:
    """The program that makes a Debian of its own. Raises PartMissing."""
    if shutil.which("debootstrap") is None and not install(["debootstrap"]):
        raise PartMissing("debootstrap is not here, and no apt-get to install it with.")
    return shutil.which("debootstrap") or ""


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """What stays in the cache under this name; made where it is not there yet, by one process at a time.

    What `make` leaves at the path that it is given is whole: it is renamed to it.
    """
    target = cache_folder() / name
    with (cache_folder() / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            make(target)
    return target


def unpack(name: str, packages: Sequence[str]) -> Path:
    """The root of the unpacked packages, for who may not install. Raises PartMissing without apt."""
    return kept(name, partial(_unpack, packages))


def _unpack(packages: Sequence[str], target: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise PartMissing(f"{packages[0]} is not here: install it with this system's package manager.")
    half = target.with_suffix(".new")
    shutil.rmtree(half, ignore_errors=True)
    (half / "debs").mkdir(parents=True)
    options = _private_apt(cache_folder() / "apt")
    _run(["apt-get", *options, "update"], packages)
    _run(["apt-get", *options, "download", *packages], packages, half / "debs")
    for deb in sorted((half / "debs").glob("*.deb")):
        _run(["dpkg-deb", "-x", str(deb), str(half)], packages)
    shutil.rmtree(half / "debs")
    half.rename(target)


def _private_apt(folder: Path) -> list[str]:
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return ["-o", f"Dir::State::Lists={folder / 'lists'}", "-o", f"Dir::Cache={folder}"]


def _run(command: Sequence[str], packages: Sequence[str], cwd: Path | None = None) -> None:
    # RUNLEVEL=1 keeps the packages' own service from being started where there is no systemd.
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    result = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        said = (result.stderr.strip() or result.stdout.strip()).splitlines() or ["no reason given"]
        raise PartMissing(f"{' '.join(packages[:2])} could not be had ({' '.join(command[:2])}: {said[-1]}).")
