"""A project's statistics files: gzip of any size, read as it comes, record by record."""

import asyncio
import re
import zlib
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

DEADLINE_S = 3600.0
LARGEST_RECORD = 64 * 1024
MOST_BYTES = 16 * 1024**3
"""Unpacked."""
_PIECE = 256 * 1024
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
        async with http.get(url, headers=headers, timeout=timeout, allow_redirects=False) as answer:
            if answer.status == 304:
                yield None
                return
            if answer.status in (403, 404, 410):
                raise NoSuchFile(f"The project answers with HTTP {answer.status}.")
            if answer.status != 200:
                raise ProjectUnavailable(f"The project answers with HTTP {answer.status}.")
            wanted = None if users is None else lambda record: _is_of(record, users)
            records = _records(answer.content.iter_chunked(64 * 1024), kind.tag, wanted)
            yield StatsFile(answer.headers.get("ETag", ""), records)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ProjectUnavailable(f"The project's statistics do not come: {type(error).__name__}.") from None


async def _records(
    pieces: AsyncIterator[bytes], tag: str, wanted: Callable[[bytes], bool] | None
) -> AsyncIterator[Node]:
    begin, end = f"<{tag}>".encode(), f"</{tag}>".encode()
    rest = b""
    async for text in _unpacked(pieces):
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


async def _unpacked(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    total = 0
    try:
        async for piece in pieces:
            waiting = piece
            while waiting:
                text = unpacker.decompress(waiting, _PIECE)
                waiting = unpacker.unconsumed_tail
                total += len(text)
                if total > MOST_BYTES:
                    raise ProjectUnavailable("The project's statistics have no end.")
                if text:
                    yield text
    except zlib.error:
        raise ProjectUnavailable("The project's statistics are no gzip file.") from None
    if not unpacker.eof:
        raise ProjectUnavailable("The project's statistics end in the middle.")


def _is_of(record: bytes, users: frozenset[int]) -> bool:
    found = _USER.search(record)
    return found is not None and int(found[1]) in users
