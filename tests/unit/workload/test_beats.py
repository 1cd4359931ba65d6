"""Beats over many resources, or organisations: what one of them ails holds up no other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from libs.common.db import Database
from services.workload.reconcile import beats
from services.workload.usecases import probing, renewing, silence
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
        (beats.judge_silent, (silence, "judge_silence"), "silent_organisations", "silence.not_judged"),
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
async def test_what_fails_a_beat_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, beat: Any, work: tuple[Any, str], listing: str, failure: str
) -> None:
    done: list[UUID] = []

    async def listed(*_: Any) -> list[UUID]:
        return THREE

    async def do(_means: Any, _session: Any, one: UUID, **_: bool) -> bool:
        if one == THREE[0]:
            raise ValueError("a row that nobody can read")
        done.append(one)
        return False

    room, name = work
    monkeypatch.setattr(room, listing, listed)
    monkeypatch.setattr(room, name, do)

    with capture_logs() as logs, pytest.raises(ValueError, match="nobody can read"):
        await beat(cast(Database, NoDatabase()), cast(Means, None))

    assert done == THREE[1:]
    [told] = [entry for entry in logs if entry["event"] == failure]
    assert str(THREE[0]) in {told.get("resource"), told.get("organisation")}
