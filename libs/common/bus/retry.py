"""How the bus behaves while its server is away: it tries again, with pauses, until its deadline."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from libs.common.bus.base import BusUnavailable
from libs.common.bus.handling import cancel_requests, heed_cancellation

Result = TypeVar("Result")
Lost = tuple[type[Exception], ...]

DEADLINE_S = 10.0
CONNECT_WITHIN_S = 30.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class Backoff:
    """Pauses between tries to reach a server: 50 ms, doubling up to 1 s."""

    def __init__(self) -> None:
        self._pause_s = _FIRST_PAUSE_S

    def reset(self) -> None:
        """The server answered."""
        self._pause_s = _FIRST_PAUSE_S

    async def pause(self) -> None:
        """Wait before the next try."""
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, _LONGEST_PAUSE_S)
        await asyncio.sleep(pause_s)


async def until_deadline(
    attempt: Callable[[], Awaitable[Result]], lost: Lost, deadline_s: float = DEADLINE_S
) -> Result:
    """The result of the first attempt that does not fail with one of `lost`.

    Raises BusUnavailable at the deadline.
    """
    backoff = Backoff()
    why: BaseException | None = None
    before = cancel_requests()
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                try:
                    result = await attempt()
                    heed_cancellation(before)
                    return result
                except BusUnavailable:
                    raise
                except lost as error:
                    why = error
                except asyncio.CancelledError as error:
                    why = error  # a closing channel cancels whoever waits in it
                heed_cancellation(before)
                await backoff.pause()
    except TimeoutError:
        raise BusUnavailable(f"no answer in {deadline_s:g} s ({type(why).__name__})") from why
