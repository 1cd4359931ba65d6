"""Beats over many resources: what one of them ails holds up no other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from libs.common.db import Database
from services.workload.reconcile import beats
from services.workload.usecases import probing, renewing
from services.workload.usecases.following import Means

THREE = [UUID(int=number) for number in (1, 2, 3)]


class NoDatabase:
    """Transactions without a database."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield None


@pytest.mark.parametrize(
    ("beat", "work", "listing", "failure"),
    [
        (
            partial(beats.renew_all, by_manager=True),
            (renewing, "renew"),
            "resources_with_machines",
            "resource.not_renewed",
        ),
        (
            partial(beats.probe_all, has_door=True),
            (probing, "probe"),
            "resources_with_probes",
            "resource.not_probed",
        ),
    ],
)
async def test_a_resource_that_fails_a_beat_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, beat: Any, work: tuple[Any, str], listing: str, failure: str
) -> None:
    done: list[UUID] = []

    async def resources(_session: Any) -> list[UUID]:
        return THREE

    async def do(_means: Any, _session: Any, resource_id: UUID, **_: bool) -> None:
        if resource_id == THREE[0]:
            raise ValueError("a row that nobody can read")
        done.append(resource_id)

    room, name = work
    monkeypatch.setattr(room, listing, resources)
    monkeypatch.setattr(room, name, do)

    with capture_logs() as logs, pytest.raises(ValueError, match="nobody can read"):
        await beat(cast(Database, NoDatabase()), cast(Means, None))

    assert done == THREE[1:]
    [told] = [entry for entry in logs if entry["event"] == failure]
    assert told["resource"] == str(THREE[0])
