"""deploy/compose as an operator runs it, as a project of its own: fresh secrets, ports and volumes of nobody else."""

import json
import shutil
import socket
import subprocess
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.parts.compose.engine import DockerEngine
from tools.parts.compose.images import ROOT, Images
from tools.parts.slots import free_port

COMPOSE = ROOT / "deploy" / "compose"
BIN = Path(sys.executable).parent
JOB = Path(__file__).parent / "job.py"
UP_WITHIN_S = 600
SHARING = ("registry", "templates", "monitor", "workload", "tides")
"""Who must reach the simulated cloud, which is a file."""
ALONE = ("identity", "registry", "policy", "templates", "contribution", "stats")
"""Services of one container each."""
SCALED = ("monitor", "workload")


@dataclass
class Installation:
    """One Compose project. Whatever fails raises PartMissing with what was said."""

    engine: DockerEngine
    images: Images
    folder: Path
    workloads: int = 2
    project: str = field(default_factory=lambda: f"tides-lab-{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        ports = {f"TIDES_PORT_{name.upper()}": str(free_port()) for name in ALONE}
        ports["TIDES_PORTS_MONITOR"] = str(free_port())
        ports["TIDES_PORTS_WORKLOAD"] = _free_ports(self.workloads)
        self.ports = ports
        clouds = self.folder / "clouds"
        clouds.mkdir()
        clouds.chmod(0o777)
        shutil.copyfile(JOB, self.folder / "job.py")
        volumes = [f"{clouds}:/clouds", f"{self.folder / 'job.py'}:/job.py:ro"]
        override = {"services": {name: {"volumes": volumes} for name in SHARING}}
        (self.folder / "lab.json").write_text(json.dumps(override))
        made = {**self.engine.environment, "TIDES": str(BIN / "tides")}
        words = ["sh", str(COMPOSE / "make-secrets"), str(self.folder / "secrets")]
        subprocess.run(words, env=made, check=True, capture_output=True, timeout=60)

    def compose(self, *words: str) -> str:
        """One command of docker-compose's."""
        files = (COMPOSE / "compose.yaml", COMPOSE / "reach.yaml", self.folder / "lab.json")
        named = [word for file in files for word in ("-f", str(file))]
        told = {**self.images.environment, **self.ports, "TIDES_SECRETS": str(self.folder / "secrets")}
        return self.engine.run(str(BIN / "docker-compose"), "-p", self.project, *named, *words, more=told)

    def up(self) -> dict[str, str]:
        """Everything is started; when all are healthy, the health of each container by name."""
        scale = ("--scale", f"workload={self.workloads}")
        try:
            self.compose("up", "-d", "--wait", "--wait-timeout", str(UP_WITHIN_S), *scale)
        except Exception:
            with suppress(Exception):
                print(self.compose("logs", "--no-color", "--tail", "30")[-20_000:])
            raise
        rows = [json.loads(line) for line in self.compose("ps", "--format", "json").splitlines() if line]
        return {row["Name"]: row["Health"] for row in rows}

    def down(self, *words: str) -> None:
        """All containers stop in order and go; the volumes stay, unless `-v` is said."""
        self.compose("down", "--remove-orphans", "--timeout", "40", *words)

    def job(self, *words: str) -> list[str]:
        """What the main job said, in a container of the command line's."""
        run = ("run", "--rm", "-T", "--entrypoint", "python", "tides", "/job.py", *words)
        return self.compose(*run).strip().splitlines()

    def tell(self) -> None:
        """What `yield when-told` waits for."""
        (self.folder / "clouds" / "now").touch()

    def containers(self) -> list[dict[str, Any]]:
        """What the engine says of every container of the project."""
        label = f"label=com.docker.compose.project={self.project}"
        found = self.engine.run("ps", "-aq", "--filter", label).split()
        told: list[dict[str, Any]] = json.loads(self.engine.run("inspect", *found)) if found else []
        return told

    def left(self) -> list[str]:
        """Containers, networks and volumes of the project."""
        label = f"label=com.docker.compose.project={self.project}"
        kinds = (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q"))
        return [line for kind in kinds for line in self.engine.run(*kind, "--filter", label).split()]

    def secret(self, name: str) -> str:
        """What a file of the secrets says."""
        return (self.folder / "secrets" / name).read_text().strip()

    @property
    def reach(self) -> dict[str, str]:
        """What the command line is told on this machine, outside of every container."""
        alone = {f"TIDES_URL_{name.upper()}": self.ports[f"TIDES_PORT_{name.upper()}"] for name in ALONE}
        first = {
            f"TIDES_URL_{name.upper()}": self.ports[f"TIDES_PORTS_{name.upper()}"].split("-")[0]
            for name in SCALED
        }
        urls = {name: f"http://127.0.0.1:{port}" for name, port in {**alone, **first}.items()}
        token = str(self.folder / "secrets" / "bootstrap_admin_token")
        return {**urls, "TIDES_URL": urls["TIDES_URL_REGISTRY"], "TIDES_TOKEN_FILE": token}


def _free_ports(count: int) -> str:
    """Neighbours, as Compose writes a range."""
    while True:
        first = free_port()
        with suppress(OSError):
            for port in range(first + 1, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return f"{first}-{first + count - 1}"
