"""Kill the process at every kind of moment, start the next, and keep account: how many deaths, and what was wrong."""

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from libs.common.log import configure
from tests.crash.plays import plays
from tests.crash.points import Point
from tools.parts.postgres import PostgresServer


async def main(most: int | None, seed: int, like: str) -> bool:
    """Play every point, or `most` of them: a line for each trouble, one of JSON. Whether all is well."""
    began = time.monotonic()
    server = PostgresServer()
    await server.start()
    troubles: dict[str, list[str]] = {}
    unreached = 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            async with plays(Path(folder) / "crash", server.url) as theatre:
                for trouble in await theatre.prepare():
                    troubles.setdefault("no death", []).append(trouble)
                points = _chosen([point for point in theatre.every() if like in str(point)], most, seed)
                with Progress(console=Console(stderr=True)) as bar:
                    for point in bar.track(points, description="deaths"):
                        found = await theatre.die_at(point)
                        unreached += found is None
                        if found:
                            troubles[str(point)] = found
                            bar.console.print(f"{point}: {found}", markup=False)
    finally:
        await server.close()
    told = {
        "deaths": len(points) - unreached,
        "not_reached": unreached,
        "kinds": len(theatre.seen),
        "troubles": troubles,
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(told))
    return not troubles


def _chosen(points: list[Point], most: int | None, seed: int) -> list[Point]:
    if most is None or most >= len(points):
        return points
    return random.Random(seed).sample(points, most)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--most", type=int, help="so many points, by chance (default: all, more than an hour)"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--like", default="", help="only points whose name has this in it")
    given = parser.parse_args()
    configure("ERROR", "console")
    raise SystemExit(0 if asyncio.run(main(given.most, given.seed, given.like)) else 1)
