"""The event loop of a process: uvloop where there is one, for its sockets are a fifth of our time."""

import asyncio
import importlib.util
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end on a fresh loop; as `asyncio.run`."""
    with asyncio.Runner(loop_factory=_factory()) as runner:
        return runner.run(main)


def when_told_to_stop(act: Callable[[], object]) -> None:
    """Call this on SIGINT, SIGTERM and, unless it is ignored as under nohup, on SIGHUP: the terminal was closed."""
    hears_hangup = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    for number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hears_hangup else [])):
        asyncio.get_running_loop().add_signal_handler(number, act)


def _factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
