"""Every service has the same rooms and no other file; none talks to another over HTTP; no file knows this machine."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.common.service import Service
from services.cli.run import SERVICES
from tools.schemas import service_names

ROOT = Path(__file__).parents[2]
NAMES = service_names()
CLIENTS = {"cli", "dashboard"}
"""Programs for people; they are outside of every service."""
NEEDED = {"main", "api", "usecases", "models", "domain", "migrations", "README.md"}
OPTIONAL = {"reconcile", "settings"}
HTTP_CLIENTS = {
    "aiohttp",
    "httpx",
    "httpcore",
    "requests",
    "urllib3",
    "urllib.request",
    "http.client",
    "pycurl",
}

PLACES = re.compile(rf"(?<![\w.\-/}}])/({'|'.join(('work', 'farm', 'home', 'mnt'))})/")
HOSTS = re.compile(
    r"\b("
    + "|".join(
        map(r"\.".join, (("pypi", "org"), ("golang", "org"), ("npmjs", "(org|com)"), ("debian", "org")))
    )
    + r"|python[h]osted|(extra[-_])?index[-_]url\s*=|trusted[-_]host\s*=)"
)
UNREAD = {".git", ".venv", "__pycache__", ".hypothesis", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def test_the_folders_of_services_are_those_that_run() -> None:
    folders = {path.name for path in (ROOT / "services").iterdir() if path.is_dir()} - UNREAD - CLIENTS
    assert folders == set(NAMES) == set(SERVICES)


@pytest.mark.parametrize("name", NAMES)
def test_a_service_has_the_rooms_and_no_other_file(name: str) -> None:
    folder = ROOT / "services" / name
    found = {path.name.removesuffix(".py") for path in folder.iterdir()} - UNREAD - {"__init__"}
    assert found - NEEDED - OPTIONAL == set()
    assert NEEDED - found == set()
    for room in found:
        both = (folder / f"{room}.py").exists() and (folder / room).is_dir()
        assert not both, f"services/{name}/{room} is a file and a package"


@pytest.mark.parametrize("name", NAMES)
def test_a_service_calls_nobody_over_http(name: str) -> None:
    """What it knows of others it was told by events; clouds and projects are reached through drivers in libs."""
    for path in sorted((ROOT / "services" / name).rglob("*.py")):
        for module in _imports(path):
            client = next(
                (one for one in HTTP_CLIENTS if module == one or module.startswith(f"{one}.")), None
            )
            assert client is None, f"{path.relative_to(ROOT)} imports {module}"


def test_a_service_is_called_like_its_folder_and_its_schema(composed: list[Service]) -> None:
    for service in composed:
        assert service.name in NAMES
        assert service.database.schema == service.name
        assert service.migrations == f"services.{service.name}.migrations"
        assert service.prefixes, service.name


def test_beats_have_names_of_their_own(composed: list[Service]) -> None:
    for service in composed:
        names = [beat.name for beat in service.beats]
        assert len(names) == len(set(names)), service.name
        wakes = [id(beat.wake) for beat in service.beats]
        assert len(wakes) == len(set(wakes)), f"{service.name}: a wake has one waiter"
        heard = {id(wake) for hears in service.hears for wake in hears.wakes}
        assert heard <= set(wakes), f"{service.name}: wakes a beat that does not exist"


def test_no_file_names_a_place_of_one_machine_or_the_host_of_a_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in _files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if PLACES.search(line) or HOSTS.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("parts", [("see ", "work", "main"), ("cd '", "home", "jo'"), ("data: ", "mnt", "x")])
def test_a_place_would_be_found(parts: tuple[str, ...]) -> None:
    assert PLACES.search("/".join(parts))


@pytest.mark.parametrize("parts", [("https://pypi", "org/simple"), ("deb.debian", "org")])
def test_a_host_would_be_found(parts: tuple[str, ...]) -> None:
    assert HOSTS.search(".".join(parts))


@pytest.mark.parametrize("line", ["/v1/workloads", "services/work/x", "--no-emit-index-url", "mydebian"])
def test_other_words_are_left_alone(line: str) -> None:
    assert not PLACES.search(line)
    assert not HOSTS.search(line)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files() -> list[Path]:
    """Everything that is or would be committed; every file where there is no repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not UNREAD & set(path.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8000]]
