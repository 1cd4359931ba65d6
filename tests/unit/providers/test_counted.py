"""Calls to clouds are counted by service, call and cause, whatever the driver is."""

import asyncio
from typing import Any, cast
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from libs.common.metrics import Metrics
from libs.providers.base import Capability, Cause, Provider, Rejected
from libs.providers.counted import Counting

LAB = UUID(int=7)


class Moody:
    """A session whose every look ends as it is told."""

    capabilities = frozenset({Capability.LIMITS})

    def __init__(self) -> None:
        self.error: BaseException | None = None

    async def machines(self) -> list[str]:
        if self.error is not None:
            raise self.error
        return ["one"]


async def test_calls_are_timed_and_failures_counted_by_cause() -> None:
    registry, moody = CollectorRegistry(), Moody()
    provider = Counting(Metrics(registry), "workload").counted(cast(Provider, moody), LAB)

    assert provider.capabilities == moody.capabilities
    assert cast(Any, await provider.machines()) == ["one"]
    for error in (
        Rejected(Cause.AUTH, "no"),
        Rejected(Cause.AUTH, "no"),
        KeyError(),
        asyncio.CancelledError(),
    ):
        moody.error = error
        with pytest.raises(type(error)):
            await provider.machines()

    def errors(cause: str) -> float | None:
        labels = {"service": "workload", "resource": str(LAB), "call": "machines", "cause": cause}
        return registry.get_sample_value("tides_provider_errors_total", labels)

    assert [errors(cause) for cause in ("auth", "unknown", "cancelled")] == [2, 1, 1]
    labels = {"service": "workload", "call": "machines"}
    assert registry.get_sample_value("tides_provider_call_seconds_count", labels) == 5
