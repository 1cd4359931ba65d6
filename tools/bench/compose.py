"""Compose for real: image, containers, the main job inside on a simulated cloud, everything down and up again.

On the Docker engine that answers, else on a private one; images are built here unless they are named. The policy has
the preset's own patience (ten minutes); --hasty lets seconds stand for minutes, as the test does. It makes a project
of its own with fresh secrets and volumes, and takes them away at the end.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tools.bench._timed import timed
from tools.parts import PartMissing
from tools.parts.compose import Installation
from tools.parts.compose.engine import DockerEngine
from tools.parts.compose.images import Images, build_all, build_tides


def main() -> None:
    """Run it; what is seen is printed."""
    parser = argparse.ArgumentParser(prog="./dev bench compose", description=__doc__)
    parser.add_argument("--base-image", help="for the Dockerfile; default: one that is made here")
    parser.add_argument("--image", help="an image that is there, instead of a build")
    parser.add_argument("--postgres-image", default="postgres:17", help="with one of the two above")
    parser.add_argument("--rabbitmq-image", default="rabbitmq:4", help="with one of the two above")
    parser.add_argument("--hasty", action="store_true", help="a policy of seconds")
    given = parser.parse_args()
    try:
        with ExitStack() as stack:
            engine = DockerEngine()
            stack.callback(engine.close)
            timed("engine", engine.start)
            images = timed("images", lambda: _images(engine, given))
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="tides-compose-", ignore_cleanup_errors=True)
            )
            installation = Installation(engine, images, Path(folder), workloads=3)
            stack.callback(installation.down, "-v")
            rehearse(installation, *([] if given.hasty else ["patiently"]))
    except PartMissing as missing:
        sys.exit(str(missing))


def rehearse(installation: Installation, *how: str) -> None:
    """Lend, be taken away, come back, and give way to the owner."""
    _up(installation)
    print("\n".join(installation.job("lend", *how)), flush=True)
    timed("down (the volumes stay)", installation.down)
    _up(installation)
    print("\n".join(installation.job("yield")), flush=True)


def _up(installation: Installation) -> None:
    health = list(timed("up", installation.up).values())
    print(f"{health.count('healthy')} of {len(health)} containers are healthy", flush=True)


def _images(engine: DockerEngine, given: argparse.Namespace) -> Images:
    if given.image is None and given.base_image is None:
        return build_all(engine, "tides-lab")
    image = given.image or build_tides(engine, "tides-lab", given.base_image)
    return Images(image, given.postgres_image, given.rabbitmq_image)


if __name__ == "__main__":
    main()
