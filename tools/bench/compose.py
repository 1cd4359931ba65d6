"""Compose for real: image, containers, the main job inside on a simulated cloud, everything down and up again.

Needs a Docker engine (DOCKER_HOST) and, where no registry is reached, images of one's own: --base-image with Python
3.11 (debootstrap makes one), and --postgres-image and --rabbitmq-image that behave as the official ones. It makes a
project of its own with fresh secrets and volumes, and takes them away at the end.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"
BIN = Path(sys.executable).parent
JOB = ROOT / "tools" / "bench" / "_compose_job.py"
WITHIN_S = 900
SHARING = ("registry", "templates", "monitor", "workload", "tides")
"""Who must reach the simulated cloud, which is a file."""


@dataclass
class Installation:
    """One Compose project."""

    folder: Path
    images: dict[str, str]
    files: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        clouds = self.folder / "clouds"
        clouds.mkdir()
        clouds.chmod(0o777)
        volumes = [f"{clouds}:/clouds", f"{JOB}:/job.py:ro"]
        override = {"services": {name: {"volumes": volumes} for name in SHARING}}
        (self.folder / "lab.json").write_text(json.dumps(override))
        self.files = ["-f", str(COMPOSE / "compose.yaml"), "-f", str(self.folder / "lab.json")]

    def compose(self, *words: str, shown: bool = False) -> str:
        """One command; ends the run where it fails."""
        command = [str(BIN / "docker-compose"), "-p", "tides-bench", *self.files, *words]
        environment = {**os.environ, **self.images, "TIDES_SECRETS": str(self.folder / "secrets")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WITHIN_S)
        if done.returncode != 0:
            sys.exit(f"{' '.join(words)}: {(done.stderr or done.stdout)[-2000:]}")
        if shown:
            print(done.stdout.strip(), flush=True)
        return done.stdout

    def job(self, *words: str) -> None:
        """The main job, in a container of the command line's."""
        run = ("run", "--rm", "-T", "--entrypoint", "python", "tides", "/job.py", *words)
        self.compose(*run, shown=True)

    def up(self) -> None:
        """All healthy, with three workloads."""
        began = time.monotonic()
        self.compose("up", "-d", "--wait", "--wait-timeout", "600", "--scale", "workload=3")
        rows = [json.loads(line) for line in self.compose("ps", "--format", "json").splitlines() if line]
        healthy = [row["Name"] for row in rows if row["Health"] == "healthy"]
        print(
            f"up: {len(healthy)} of {len(rows)} containers healthy after {time.monotonic() - began:.0f} s",
            flush=True,
        )


def main() -> None:
    """Run it; what is seen is printed."""
    parser = argparse.ArgumentParser(prog="./dev bench compose", description=__doc__)
    parser.add_argument("--base-image", help="for the Dockerfile; default: the Dockerfile's own")
    parser.add_argument("--image", help="an image that is there, instead of a build")
    parser.add_argument("--postgres-image", default="postgres:17")
    parser.add_argument("--rabbitmq-image", default="rabbitmq:4")
    given = parser.parse_args()
    image = given.image or build(given.base_image)
    with tempfile.TemporaryDirectory(prefix="tides-compose-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        environment = {**os.environ, "TIDES": str(BIN / "tides")}
        subprocess.run(
            ["sh", str(COMPOSE / "make-secrets"), str(folder / "secrets")], env=environment, check=True
        )
        images = {
            "TIDES_IMAGE": image,
            "POSTGRES_IMAGE": given.postgres_image,
            "RABBITMQ_IMAGE": given.rabbitmq_image,
        }
        installation = Installation(folder, images)
        try:
            rehearse(installation)
        finally:
            installation.compose("down", "-v", "--timeout", "40")


def rehearse(installation: Installation) -> None:
    """Lend, be taken away, come back, and give way to the owner."""
    installation.up()
    installation.job("lend")
    began = time.monotonic()
    installation.compose("down", "--timeout", "40")
    print(f"down: after {time.monotonic() - began:.0f} s; the volumes stay", flush=True)
    installation.up()
    installation.job("yield")


def build(base_image: str | None) -> str:
    """The image of this tree."""
    began, arguments = time.monotonic(), ["--build-arg", f"BASE_IMAGE={base_image}"] if base_image else []
    subprocess.run(
        ["docker", "build", "-q", "--network", "host", *arguments, "-t", "tides:bench", str(ROOT)], check=True
    )
    print(f"image: built after {time.monotonic() - began:.0f} s", flush=True)
    return "tides:bench"


if __name__ == "__main__":
    main()
