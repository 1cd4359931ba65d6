"""The images of a Compose project: ours from the Dockerfile, and all of them on a Debian that is made here."""

import os
import shutil
import ssl
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools.parts import debian
from tools.parts.compose.engine import DockerEngine

ROOT = Path(__file__).parents[3]
LAB = Path(__file__).parent / "lab"
SUITE = "bookworm"
DEBIAN = f"tides-lab-debian:{SUITE}"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Images:
    """What compose.yaml is told."""

    tides: str
    postgres: str = "postgres:17"
    rabbitmq: str = "rabbitmq:4"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of compose.yaml."""
        return {
            "TIDES_IMAGE": self.tides,
            "POSTGRES_IMAGE": self.postgres,
            "RABBITMQ_IMAGE": self.rabbitmq,
        }


def build_all(engine: DockerEngine, name: str) -> Images:
    """Ours of this tree under this name, on images of Debian's packages; the engine's layers make it short.

    Where nobody is root, the official images are pulled instead. Raises PartMissing.
    """
    if os.geteuid() != 0:
        return Images(build_tides(engine, name, None))
    ensure_debian(engine)
    with tempfile.TemporaryDirectory() as folder:
        context = Path(shutil.copytree(LAB, Path(folder) / "lab"))
        trusted = AUTHORITIES if AUTHORITIES.exists() else Path(ssl.get_default_verify_paths().cafile or "")
        shutil.copyfile(trusted, context / "ca-certificates.crt")
        for stage in ("python", "postgres", "rabbitmq"):
            words = ("--target", stage, "--build-arg", f"DEBIAN={DEBIAN}", "-t", f"tides-lab-{stage}")
            engine.run("build", "-q", "--network", "host", *words, str(context))
    tides = build_tides(engine, name, "tides-lab-python")
    return Images(tides, "tides-lab-postgres", "tides-lab-rabbitmq")


def build_tides(engine: DockerEngine, name: str, base: str | None) -> str:
    """The image of this tree; on the Dockerfile's own base, unless another is named."""
    words = ["build", "-q", "--network", "host", *(["--build-arg", f"BASE_IMAGE={base}"] if base else [])]
    # Named as well, so that pruning keeps the layer with our libraries.
    engine.run(*words, "--target", "build", "-t", f"{name}-build", str(ROOT))
    engine.run(*words, "-t", name, str(ROOT))
    if engine.is_private:
        engine.run("image", "prune", "-f")
    return name


def ensure_debian(engine: DockerEngine) -> None:
    """The smallest Debian, made by debootstrap from its own mirror (a minute) unless the engine has it."""
    if engine.run("image", "ls", "-q", DEBIAN).strip():
        return
    program = debian.find_debootstrap()
    with tempfile.TemporaryDirectory(prefix="tides-debian-") as folder:
        engine.run(program, "--variant=minbase", SUITE, folder)
        with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as packed:
            engine.run("import", "-", DEBIAN, feed=packed.stdout)
