"""When the next round is due after one that failed: a bit of chance, and nothing held against a changed resource."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

from libs.providers.base import Cause, ProviderError, Rejected, Unavailable
from services.monitor.models import Resource
from services.monitor.reconcile.backlog import Backlog
from services.monitor.reconcile.rounds import Rounds, Watch

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def pauses(error: ProviderError, watched: int = 1) -> tuple[float, float]:
    """The shortest and the longest of many pauses after a first failure, s."""
    runtime, nobody = SimpleNamespace(settings=SimpleNamespace(jitter=1.0)), cast(Any, None)
    rounds = Rounds(cast(Any, runtime), nobody, nobody, nobody, uuid4())
    watch = Watch(watched, NOW, NOW, Backlog({}), (), 0.0, failures=1)
    found = [rounds._pause_s(Resource(revision=1, interval_s=20.0), watch, error) for _ in range(200)]
    return min(found), max(found)


def test_many_clouds_that_return_at_once_are_not_asked_at_once() -> None:
    shortest, longest = pauses(Unavailable(Cause.UNREACHABLE, "503"))
    assert 18 <= shortest < 18.5
    assert 19.5 < longest <= 20


def test_nobody_is_asked_sooner_than_it_said() -> None:
    shortest, longest = pauses(Unavailable(Cause.UNREACHABLE, "503", 90.0))
    assert 90 <= shortest < 92
    assert 97 < longest <= 99


def test_an_old_password_that_is_refused_keeps_the_new_one_waiting_for_nothing() -> None:
    refused = Rejected(Cause.AUTH, "wrong password")
    assert pauses(refused, watched=2) == (0, 0)
    assert pauses(refused)[0] >= 108
