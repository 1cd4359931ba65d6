"""How an answer goes out: as it is, cut short, in small portions, or broken off."""

import asyncio
from dataclasses import dataclass

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Trickle:
    """An answer in portions of so many bytes, with a pause after each."""

    portion: int
    pause_s: float


def truncate(answer: web.Response, size: int) -> web.Response:
    """The first bytes as if they were all."""
    answer.body = _bytes(answer)[:size]
    return answer


async def trickle(request: web.Request, answer: web.Response, how: Trickle) -> web.StreamResponse:
    """The whole answer, slowly."""
    stream = await _begin(request, answer)
    body = _bytes(answer)
    try:
        for start in range(0, len(body), how.portion):
            await stream.write(body[start : start + how.portion])
            await asyncio.sleep(how.pause_s)
        await stream.write_eof()
    except (ConnectionError, RuntimeError):
        pass  # the client has lost its patience
    return stream


async def break_off(request: web.Request, answer: web.Response) -> web.StreamResponse:
    """Half of the answer, and then no connection any more."""
    stream = await _begin(request, answer)
    body = _bytes(answer)
    await stream.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.abort()
    return stream


async def _begin(request: web.Request, answer: web.Response) -> web.StreamResponse:
    stream = web.StreamResponse(status=answer.status, headers=answer.headers)
    stream.content_length = len(_bytes(answer))
    await stream.prepare(request)
    return stream


def _bytes(answer: web.Response) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body
