"""Death after death: from one prepared installation, copied for each."""

import asyncio
import json
import random
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.crash.points import DIED, Point


@dataclass
class Plays:
    """A prepared installation, and the process whose forks play its story."""

    folder: Path
    server_url: str
    """Of a PostgreSQL superuser."""
    process: asyncio.subprocess.Process
    seen: dict[str, int] = field(default_factory=dict)
    """How often each thing happens in a story without a death."""

    async def prepare(self) -> list[str]:
        """The installation, and once the whole story without a death; what is wrong with that."""
        self._live.mkdir(parents=True)
        await self._copied_database("template0", self._base)
        await self._must(0, do="prepare", url=self._url(self._base))
        shutil.copytree(self._live, self._kept)
        await self._set_back()
        await self._must(0, do="record", url=self._url(self._play))
        answer = self._answer()
        self.seen = answer["seen"]
        found: list[str] = answer["troubles"]
        return found

    async def die_at(self, point: Point) -> list[str] | None:
        """The story with a death at this point and a new process after it; what is wrong then.

        None: the point was not reached this time, and all was well.
        """
        await self._set_back()
        url = self._url(self._play)
        code = await self._order(do="die", url=url, point=asdict(point))
        if code == DIED:
            code = await self._order(do="go_on", url=url)
        elif code == 0 and not self._answer()["troubles"]:
            return None
        if code != 0:
            logs = [path.read_text()[-1500:] for path in self._live.glob("*.log")]
            return [f"a process ended with {code}", *logs]
        troubles: list[str] = self._answer()["troubles"]
        return troubles

    async def close(self) -> None:
        """Take the databases away."""
        for name in (self._play, self._base):
            await _execute(self.server_url, f'drop database if exists "{name}" with (force)')

    def choose(self, count: int, seed: int) -> list[Point]:
        """So many points, each of another thing as far as there are; the same for a seed."""
        chance = random.Random(seed)
        names = sorted(self.seen)
        chance.shuffle(names)
        return [
            Point(name, chance.randint(1, self.seen[name]), chance.random() < 0.5)
            for name in (names * (1 + count // max(1, len(names))))[:count]
        ]

    def every(self) -> list[Point]:
        """Before and after the first, a middle and the last time of everything."""
        return [
            Point(name, nth, after)
            for name, times in sorted(self.seen.items())
            for nth in sorted({1, (times + 1) // 2, times})
            for after in (False, True)
        ]

    @property
    def _live(self) -> Path:
        return self.folder / "live"

    @property
    def _kept(self) -> Path:
        return self.folder / "kept"

    @property
    def _base(self) -> str:
        return f"crash_{self.folder.name}_base"

    @property
    def _play(self) -> str:
        return f"crash_{self.folder.name}_play"

    def _url(self, database: str) -> str:
        return urlunsplit(urlsplit(self.server_url)._replace(path=f"/{database}"))

    def _answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._live / "answer.json").read_text())
        return found

    async def _set_back(self) -> None:
        shutil.rmtree(self._live)
        shutil.copytree(self._kept, self._live)
        await self._copied_database(self._base, self._play)

    async def _copied_database(self, template: str, name: str) -> None:
        await _execute(
            self.server_url,
            f'drop database if exists "{name}" with (force)',
            f'create database "{name}" template "{template}"',
        )

    async def _must(self, code: int, **order: Any) -> None:
        found = await self._order(**order)
        if found != code:
            logs = [path.read_text()[-3000:] for path in self._live.glob("*.log")]
            raise AssertionError(f"{order['do']} ended with {found}: {' '.join(logs)}")

    async def _order(self, **order: Any) -> int:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({**order, "folder": str(self._live)}).encode() + b"\n")
        await stdin.drain()
        return int(json.loads(await stdout.readline())["code"])


@asynccontextmanager
async def plays(folder: Path, server_url: str) -> AsyncIterator[Plays]:
    """A theatre that is empty yet: `prepare` it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.crash.zygote"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    found = Plays(folder, server_url, process)
    try:
        yield found
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        await found.close()


async def _execute(url: str, *statements: str) -> Sequence[str]:
    connection = await asyncpg.connect(url)
    try:
        return [await connection.execute(statement) for statement in statements]
    finally:
        await connection.close()
