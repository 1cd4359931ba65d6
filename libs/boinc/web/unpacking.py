"""Bodies as they come from strangers, unpacked no further than is asked for: a kilobyte may stand for a gigabyte."""

import zlib
from collections.abc import AsyncIterator

import aiohttp

from libs.boinc.web.errors import ProjectUnavailable

ENCODINGS = "gzip, deflate"
_PIECE = 256 * 1024
MOST_RATIO = 50
"""Files of real projects come at ten times their size; one that stands for more than this is made for harm."""
_FREE = 4 * 1024 * 1024
"""So much is unpacked of anything."""


async def read_at_most(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """The unpacked body. Raises ProjectUnavailable when it is larger, or is packed in a way that was not asked for.

    The session must not unpack by itself.
    """
    body = bytearray()
    pieces = answer.content.iter_chunked(64 * 1024)
    match answer.headers.get("Content-Encoding", "identity").strip().lower():
        case "" | "identity":
            texts: AsyncIterator[bytes] = pieces
        case "gzip" | "x-gzip" | "deflate":
            texts = unpacked(pieces, most + 1)
        case _:
            raise ProjectUnavailable("The project's answer is packed in a way that nobody asked for.")
    async for text in texts:
        body += text
        if len(body) > most:
            raise ProjectUnavailable(f"The project's answer is larger than {most // 1024} KiB.")
    return bytes(body)


async def unpacked(pieces: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """What gzip or zlib packed, a quarter of a MiB at a time. Raises ProjectUnavailable for what is neither, does not
    end, is larger than `most`, or grows as no honest file does."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    packed = total = 0
    try:
        async for piece in pieces:
            waiting, packed = piece, packed + len(piece)
            while waiting:
                text = unpacker.decompress(waiting, _PIECE)
                waiting = unpacker.unconsumed_tail
                total += len(text)
                if total > most or total > _FREE + MOST_RATIO * packed:
                    raise ProjectUnavailable("What the project sends has no end.")
                if text:
                    yield text
    except zlib.error:
        raise ProjectUnavailable("What the project sends is not packed as it says.") from None
    if not unpacker.eof:
        raise ProjectUnavailable("What the project sends ends in the middle.")
