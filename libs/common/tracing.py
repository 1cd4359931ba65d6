"""Where work came from: traces go from message to message in W3C headers. Nothing is noted unless somebody collects.

Whoever begins work on account of something from outside (a message, a round, a decision that was stored) says what
caused it; what happens inside is a part of that. What is emitted meanwhile carries where it came from.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from enum import Enum
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar

from structlog.contextvars import bound_contextvars

P = ParamSpec("P")
R = TypeVar("R")


class Kind(Enum):
    """What a piece of work is to others."""

    WORKS = "works"
    SAYS = "says"
    HEARS = "hears"
    ANSWERS = "answers"


class Span(Protocol):
    """A piece of work that is being noted."""

    @property
    def trace_id(self) -> str:
        """In hexadecimal, as logs show it."""

    @property
    def headers(self) -> Mapping[str, str]:
        """W3C Trace Context (`traceparent`, `tracestate`): what says, in a message, that this work caused it."""

    def tell(self, facts: Mapping[str, object]) -> None:
        """Note more about it."""


class Tracer(Protocol):
    """Who notes work."""

    def span(
        self, name: str, kind: Kind, cause: Mapping[str, str] | None, facts: Mapping[str, object]
    ) -> AbstractContextManager[Span]:
        """Note the block. `cause` are headers, none for work that nothing caused; None: part of what is noted."""

    async def aclose(self) -> None:
        """Hand over what is noted, within a deadline; nothing is noted afterwards."""


_NOTED: ContextVar[tuple[Tracer, Span] | None] = ContextVar("noted", default=None)


class Tracing:
    """What a process notes of its work; without a tracer nothing, at no cost."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer

    @property
    def is_on(self) -> bool:
        """Whether anything is noted."""
        return self._tracer is not None

    @contextmanager
    def work(
        self, name: str, cause: Mapping[str, str] | None = None, kind: Kind = Kind.WORKS, **facts: object
    ) -> Iterator[None]:
        """Note the block, as the consequence of what these headers speak of; what was noted around it is no part."""
        if self._tracer is None:
            yield
            return
        with _noting(self._tracer, self._tracer.span(name, kind, cause or {}, facts)):
            yield

    async def aclose(self) -> None:
        """Hand over what is noted."""
        if self._tracer is not None:
            await self._tracer.aclose()


OFF = Tracing()


@contextmanager
def part(name: str, **facts: object) -> Iterator[None]:
    """Note the block as a part of the work that is being noted, if any is."""
    noted = _NOTED.get()
    if noted is None:
        yield
        return
    tracer, _ = noted
    with _noting(tracer, tracer.span(name, Kind.WORKS, None, facts)):
        yield


def as_part(name: str) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
    """Note each call as a part of the work that is being noted, if any is."""

    def mark(work: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @wraps(work)
        async def noted(*args: P.args, **kwargs: P.kwargs) -> R:
            if _NOTED.get() is None:  # a context costs more than many a call
                return await work(*args, **kwargs)
            with part(name):
                return await work(*args, **kwargs)

        return noted

    return mark


def tell(**facts: object) -> None:
    """Note more about the work that is being noted, if any is."""
    noted = _NOTED.get()
    if noted is not None:
        noted[1].tell(facts)


def carried() -> dict[str, str]:
    """The headers by which a message, or a row, says what work it came from; none where nothing is noted."""
    noted = _NOTED.get()
    return {} if noted is None else dict(noted[1].headers)


@contextmanager
def _noting(tracer: Tracer, noting: AbstractContextManager[Span]) -> Iterator[None]:
    with noting as span, bound_contextvars(trace_id=span.trace_id):
        token = _NOTED.set((tracer, span))
        try:
            yield
        finally:
            _NOTED.reset(token)
