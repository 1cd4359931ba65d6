"""A project's statistics files: gzip of any size, read as it comes, record by record."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

import aiohttp
from yarl import URL

from libs.boinc import lenient
from libs.boinc.account import canonical_url
from libs.boinc.lenient import Node
from libs.boinc.web.errors import NoSuchFile, ProjectUnavailable
from libs.boinc.web.unpacking import unpacked

DEADLINE_S = 3600.0
LARGEST_RECORD = 64 * 1024
MOST_BYTES = 16 * 1024**3
"""Unpacked."""
_USER = re.compile(rb"<userid>\s*(\d{1,18})\s*</userid>")


class StatsKind(StrEnum):
    """The files; the deleted ones name what must be forgotten here as well."""

    HOSTS = "host"
    USERS = "user"
    TEAMS = "team"
    DELETED_HOSTS = "host_deleted"
    DELETED_USERS = "user_deleted"

    @property
    def tag(self) -> str:
        """The element of a record."""
        return self.removesuffix("_deleted")


@dataclass(frozen=True, slots=True)
class StatsFile:
    """A file that has changed: give `etag` at the next time, at most once a day."""

    etag: str
    records: AsyncIterator[Node]


@asynccontextmanager
async def open_stats(
    http: aiohttp.ClientSession,
    rpc_url: str,
    kind: StatsKind,
    etag: str = "",
    users: frozenset[int] | None = None,
) -> AsyncIterator[StatsFile | None]:
    """The file's records, of these users alone where they are given; None when it is still that of `etag`.

    Raises NoSuchFile, or ProjectUnavailable, also out of the records: what came before is then true, but not all.
    """
    url = URL(canonical_url(rpc_url)) / "stats" / f"{kind}.gz"
    headers = {"Accept-Encoding": "identity"} | ({"If-None-Match": etag} if etag else {})
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S, sock_read=60)
    try:
        asked = http.get(url, headers=headers, timeout=timeout, allow_redirects=False, auto_decompress=False)
        async with asked as answer:
            if answer.status == 304:
                yield None
                return
            if answer.status in (403, 404, 410):
                raise NoSuchFile(f"The project answers with HTTP {answer.status}.")
            if answer.status != 200:
                raise ProjectUnavailable(f"The project answers with HTTP {answer.status}.")
            wanted = None if users is None else lambda record: _is_of(record, users)
            records = records_in(answer.content.iter_chunked(64 * 1024), kind.tag, wanted)
            yield StatsFile(answer.headers.get("ETag", ""), records)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise ProjectUnavailable(f"The project's statistics do not come: {type(error).__name__}.") from None


async def records_in(
    pieces: AsyncIterator[bytes], tag: str, wanted: Callable[[bytes], bool] | None
) -> AsyncIterator[Node]:
    """The records of this element in a packed file, however its pieces come; those alone whose bytes are `wanted`.

    Raises ProjectUnavailable where the file is none, or a record has no end.
    """
    begin, end = f"<{tag}>".encode(), f"</{tag}>".encode()
    rest = b""
    async for text in unpacked(pieces, MOST_BYTES):
        *whole, rest = (rest + text).split(end)
        if len(rest) > LARGEST_RECORD:
            raise ProjectUnavailable("A record of the project's statistics has no end.")
        for record in whole:
            body = record.partition(begin)[2]
            if body and (wanted is None or wanted(body)):
                node = lenient.find_root(f"<{tag}>{lenient.decode(body)}</{tag}>", tag)
                if node is not None:
                    yield node
        await asyncio.sleep(0)


def _is_of(record: bytes, users: frozenset[int]) -> bool:
    found = _USER.search(record)
    return found is not None and int(found[1]) in users
