"""Beats over many resources: what one of them ails holds up no other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from libs.common.db import Database
from services.workload.reconcile import beats
from services.workload.usecases import renewing
from services.workload.usecases.following import Means

THREE = [UUID(int=number) for number in (1, 2, 3)]


class NoDatabase:
    """Transactions without a database."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield None


async def test_a_resource_that_cannot_be_renewed_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    renewed: list[UUID] = []

    async def resources_with_machines(_session: Any) -> list[UUID]:
        return THREE

    async def renew(_means: Any, _session: Any, resource_id: UUID, *, by_manager: bool) -> int:
        if resource_id == THREE[0]:
            raise ValueError("a row that nobody can read")
        renewed.append(resource_id)
        return 0

    monkeypatch.setattr(renewing, "resources_with_machines", resources_with_machines)
    monkeypatch.setattr(renewing, "renew", renew)

    with capture_logs() as logs, pytest.raises(ValueError, match="nobody can read"):
        await beats.renew_all(cast(Database, NoDatabase()), cast(Means, None), by_manager=True)

    assert renewed == THREE[1:]
    [told] = [entry for entry in logs if entry["event"] == "resource.not_renewed"]
    assert told["resource"] == str(THREE[0])
