"""A session whose calls are counted: how many, how long, and with which cause they fail."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, cast
from uuid import UUID

from libs.common.metrics import Metrics
from libs.providers.base import Provider, ProviderError
from libs.providers.values import Cause

OPEN = "open"
CANCELLED = "cancelled"
_CALLS = frozenset(
    {
        "validate",
        "sample",
        "hardware",
        "machines",
        "recall",
        "find_template",
        "keep_as_template",
        "create",
        "delete",
        "set_power",
        "set_limits",
        "release",
    }
)


@dataclass(frozen=True, slots=True)
class Counting:
    """Counts the calls that a service makes to clouds."""

    metrics: Metrics
    service: str

    @contextmanager
    def call(self, resource_id: UUID, call: str) -> Iterator[None]:
        """Time one call, and count it where it fails."""
        started, cause = perf_counter(), ""
        try:
            yield
        except asyncio.CancelledError:
            cause = CANCELLED
            raise
        except Exception as error:
            cause = error.cause.value if isinstance(error, ProviderError) else Cause.UNKNOWN.value
            raise
        finally:
            self.metrics.cloud_called(self.service, call, perf_counter() - started)
            if cause:
                self.metrics.cloud_failed(self.service, str(resource_id), call, cause)

    def counted(self, provider: Provider, resource_id: UUID) -> Provider:
        """The same session, with every call to the cloud counted."""
        return cast(Provider, _Counted(provider, self, resource_id))


class _Counted:
    def __init__(self, provider: Provider, counting: Counting, resource_id: UUID) -> None:
        self._provider = provider
        self._counting = counting
        self._resource_id = resource_id

    def __getattr__(self, name: str) -> Any:
        known = getattr(self._provider, name)
        return self._counted(name, known) if name in _CALLS else known

    def _counted(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(*args: Any, **more: Any) -> Any:
            with self._counting.call(self._resource_id, name):
                return await call(*args, **more)

        return counted
