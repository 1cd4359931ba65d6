"""What both buses do with one message: call the handler, say what went wrong, wait longer each time."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from libs.common.bus.base import Handle, Hopeless, Message

log = structlog.get_logger(__name__)

LONGEST_PAUSE_S = 30.0
REASON_LENGTH = 500


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a message was not handled, and whether another try is of any use."""

    reason: str
    hopeless: bool = False


def pause_s(deliveries: int) -> float:
    """Seconds until a message that failed is delivered again, after so many deliveries."""
    return float(min(2 ** min(deliveries, 16) * 0.1, LONGEST_PAUSE_S))


async def attempt(handle: Handle, message: Message, queue: str, deliveries: int) -> Trouble | None:
    """None if the message was handled, else what went wrong. Nothing but our own cancellation gets out."""
    try:
        await handle(message)
        return None
    except asyncio.CancelledError:
        heed_cancellation()
        trouble = Trouble("the handler was cancelled from inside")
        log.error(
            "bus.handler_failed", queue=queue, key=message.key, message=message.id, deliveries=deliveries
        )
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:REASON_LENGTH].replace("\0", "")
        trouble = Trouble(reason, hopeless=isinstance(error, Hopeless))
        log.exception(
            "bus.handler_failed", queue=queue, key=message.key, message=message.id, deliveries=deliveries
        )
    return trouble


def cancel_requests() -> int:
    """How often somebody asked the present task to end.

    Counted, because client libraries swallow a cancellation now and then, or cancel for reasons of their own.
    """
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def heed_cancellation(since: int = 0) -> None:
    """Raise CancelledError if there were more requests to end than `since`."""
    if cancel_requests() > since:
        raise asyncio.CancelledError


async def cancel_all(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel the tasks and wait for their end, at most ten seconds; who ignores it is asked again."""
    pending = {task for task in tasks if task is not asyncio.current_task()}
    for _ in range(10):
        if not pending:
            return
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=1)
        for task in done:
            if not task.cancelled():
                task.exception()  # it was logged where it arose
    log.error("bus.tasks_do_not_end", tasks=len(pending))
