"""A VM of Tides: what an operator puts there and types, and what may be seen of its services."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tools.parts.compose.images import ROOT
from tools.parts.slots import free_port
from tools.parts.systemd import SystemdMachine

BIN = Path(sys.executable).parent
SCALED = ("monitor", "workload")
SHARING = ("registry", "templates", *SCALED)
"""Who must reach the simulated cloud, which is a file of one user."""
SHARED = "[Service]\nUser=tides-cloud\nBindPaths=/srv/shared\n"
CHECKOUT = ("deploy", "libs", "services", "pyproject.toml", "requirements.lock")
LOOK = """
cat /proc/$1/cmdline | tr '\\0' ' '; echo; cat /proc/$1/environ | tr '\\0' ' '; echo
grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs):' /proc/$1/status | tr '\\n\\t' '  '; echo
uid=$(awk '/^Uid:/ {print $2}' /proc/$1/status)
as="nsenter -t $1 -m setpriv --reuid $uid --regid $uid --clear-groups --bounding-set=-all --inh-caps=-all"
for folder in . opt etc usr home root; do $as touch /$folder/probe 2>&1; done
$as sh -c "ls /run/credentials /var/lib/private/tides; touch /tmp/probe '/var/lib/tides/$3/probe' && echo wrote"
$as sh -c "kill -0 $1" && echo signals itself
for other in $2; do $as sh -c "kill -0 $other" 2>/dev/null && echo may signal $other; done; true
"""


def insist(is_so: bool, what: str) -> None:
    """Ends the run where something is not as it is promised."""
    if not is_so:
        sys.exit(f"NOT SO: {what}")


@dataclass(frozen=True)
class Installation:
    """What is alike on every VM."""

    secrets: Mapping[str, str] = field(repr=False)
    settings: str


def new_installation(stores: Mapping[str, str]) -> Installation:
    """Fresh keys for these stores, as `tides keys` prints them."""
    said = subprocess.run(
        [BIN / "tides", "keys"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    lines = dict(line.partition("=")[::2] for line in said.splitlines())
    named = ("sealing_keys", "signing_key", "bootstrap_admin_token")
    secrets = {name: lines[f"TIDES_{name.upper()}"].strip("'") for name in named}
    public = ("TIDES_INSTALLATION_ID", "TIDES_VERIFY_KEYS")
    return Installation({**secrets, **stores}, "".join(f"{name}={lines[name]}\n" for name in public))


class Vm:
    """One of them; each service at a port of its own."""

    def __init__(self, name: str, place: Path, installation: Installation, services: Sequence[str]) -> None:
        self.name, self.services = name, services
        self.machine = SystemdMachine(name, place)
        self._installation = installation
        self._shared = place / "shared"
        self._ports = {service: free_port() for service in services}

    def run(self, *words: str) -> str:
        """What root is answered there."""
        return self.machine.run(*words)

    def prepare(self) -> None:
        """A checkout, secrets and settings; and the cloud's file for who must reach it."""
        self._shared.chmod(0o777)
        (self._shared / "job.py").write_bytes((ROOT / "tools/parts/compose/job.py").read_bytes())
        self.machine.put(ROOT, CHECKOUT, "/root/tides")
        self.run("install", "-d", "-m", "0700", "/etc/tides", "/etc/tides/secrets")
        self.run("chmod", "0755", "/etc/tides")
        for name, value in self._installation.secrets.items():
            if "identity" in self.services or name not in ("signing_key", "bootstrap_admin_token"):
                self._write(f"/etc/tides/secrets/{name}", f"{value}\n")
        # The second VM and the second version need not fetch everything again.
        self.run("sh", "-c", "echo cache-dir = /srv/shared/pip >> /etc/pip.conf")
        self._write("/etc/tides/tides.env", self._installation.settings)
        for service, port in self._ports.items():
            self._write(f"/etc/tides/{service}.env", f"TIDES_PORT={port}\n")
            if service in SHARING:
                folder = f"/etc/systemd/system/tides@{service}.service.d"
                self.run("mkdir", "-p", folder)
                self._write(f"{folder}/lab.conf", SHARED)

    def knows(self, other: "Vm") -> None:
        """The other's services by their addresses, and a token, as README.md says."""
        urls = {name: port for name, port in other._ports.items() if name not in self._ports}
        lines = [f"TIDES_URL_{name.upper()}=http://127.0.0.1:{port}\n" for name, port in urls.items()]
        self._write("/etc/tides/tides.env", "".join([self._installation.settings, *lines]))
        self._write("/root/token", self._installation.secrets["bootstrap_admin_token"])

    def install(self, *services: str) -> None:
        """As README.md says; it returns when they are ready."""
        self.run("/root/tides/deploy/systemd/install", *(services or self.services))

    def all_ready(self, seconds: float) -> None:
        """Wait until every service is."""
        self.until(lambda: all(map(self.is_ready, self.services)), seconds)

    def is_ready(self, service: str) -> bool:
        """What it says itself."""
        return self._told(service) is not None

    def version(self, service: str) -> str:
        """Of the program that runs."""
        return str((self._told(service) or {}).get("version"))

    def pid(self, service: str) -> int:
        """Of its process, as systemd knows it; 0: none."""
        return int(self.run("systemctl", "show", "-P", "MainPID", f"tides@{service}"))

    def until(self, is_so: Callable[[], bool], seconds: float, look_every_s: float = 0.2) -> None:
        """Look again until it is so."""
        end = time.monotonic() + seconds
        while not is_so():
            insist(time.monotonic() < end, f"{self.name}: within {seconds:.0f} s")
            time.sleep(look_every_s)

    def job(self, *words: str) -> list[str]:
        """The main job of tools/parts/compose, as the user whose file the cloud is."""
        urls = [f"-ETIDES_URL_{name.upper()}=http://127.0.0.1:{port}" for name, port in self._ports.items()]
        unit = (
            "-pDynamicUser=yes",
            "-pUser=tides-cloud",
            "-pBindPaths=/srv/shared",
            "-ELAB_CLOUDS=/srv/shared",
        )
        token = "-pLoadCredential=token:/etc/tides/secrets/bootstrap_admin_token"
        line = (
            'TIDES_TOKEN_FILE=$CREDENTIALS_DIRECTORY/token exec /opt/tides/bin/python /srv/shared/job.py "$@"'
        )
        quiet = ("systemd-run", "-q", "--pipe", "--wait", "--collect")
        return self.run(*quiet, *unit, *urls, token, "sh", "-c", line, "sh", *words).strip().splitlines()

    def is_shut_in(self) -> None:
        """Every process: a user of its own without rights, a root that it only reads, no secret but its own."""
        pids = {service: self.pid(service) for service in self.services}
        users = {}
        for service, pid in pids.items():
            others = " ".join(str(other) for name, other in pids.items() if name not in {service, *SHARING})
            seen = self.run("sh", "-c", LOOK, "sh", str(pid), others, service)
            hidden = [value for value in self._installation.secrets.values() if value in seen]
            insist(
                not hidden and "hush" not in seen, f"no secret in the environment or arguments of {service}"
            )
            is_alone = "signals itself" in seen and "may signal" not in seen
            insist(is_alone, f"{service} may signal nobody else: {seen[-300:]}")
            refused = seen.count("Read-only file system") + seen.count("Permission denied")
            insist(refused == 6 and "wrote" in seen, f"{service} writes its own alone: {seen}")
            insist(
                f"\ntides@{service}.service\n" in seen and seen.count("\ntides@") == 1,
                f"{service}: its own secrets",
            )
            state = next(line for line in seen.splitlines() if line.startswith("Uid:"))
            insist(
                f"CapBnd: {'0' * 16}" in state and "NoNewPrivs: 1" in state,
                f"{service} has no right: {state}",
            )
            users[service] = state.split()[1]
            limit = self.run("systemctl", "show", "-P", "MemoryMax", f"tides@{service}").strip()
            insist(int(limit) == 512 * 2**20, f"{service} may take 512 MB")
        alone = [user for service, user in users.items() if service not in SHARING]
        insist("0" not in users.values() and len(set(users.values())) == len(alone) + 1, f"users: {users}")
        lines = self.run("journalctl", "-t", "tides-policy", "-o", "cat", "--no-pager").splitlines()
        insist(all("event" in json.loads(line) for line in lines) and bool(lines), "the log is JSON")
        print(f"{self.name}: {len(users)} services are shut in; {len(set(users.values()))} users", flush=True)

    def _told(self, service: str) -> dict[str, object] | None:
        with (
            suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self._ports[service]}/readyz", timeout=5) as answer,
        ):
            told: dict[str, object] = json.load(answer)
            return told
        return None

    def _write(self, path: str, text: str) -> None:
        self.machine.run("sh", "-c", f"umask 077; cat > {path}", feed=text)
