"""When the next round is due after one that failed: a bit of chance, and nothing held against a changed resource."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

from libs.common.tracing import Tracing
from libs.providers.base import Cause, Connection, ProviderError, Rejected, Unavailable
from services.monitor.models import Resource
from services.monitor.reconcile.backlog import Backlog
from services.monitor.reconcile.rounds import Rounds, Watch

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def pauses(error: ProviderError) -> tuple[float, float]:
    """The shortest and the longest of many pauses after a first failure, s."""
    runtime, nobody = SimpleNamespace(settings=SimpleNamespace(jitter=1.0)), cast(Any, None)
    rounds = Rounds(cast(Any, runtime), nobody, nobody, nobody, uuid4())
    watch = Watch(1, NOW, NOW, Backlog({}), (), 0.0, failures=1)
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


def test_a_refused_login_is_repeated_slowly() -> None:
    assert pauses(Rejected(Cause.AUTH, "wrong password"))[0] >= 108


async def test_what_an_old_password_was_refused_counts_for_nothing_and_it_is_used_no_more() -> None:
    dropped: list[UUID] = []

    async def drop(resource_id: UUID) -> None:
        dropped.append(resource_id)

    class Cloud:
        async def sample(self, since: datetime | None) -> Any:
            watch.revision = 2  # the new password is heard of while the old one is refused
            raise Rejected(Cause.AUTH, "wrong password")

    async def get(driver: str, connection: Connection) -> Any:
        asked.append(connection.revision)
        return Cloud()

    asked: list[int] = []
    settings, clock = SimpleNamespace(jitter=1.0, installation_id=None), SimpleNamespace(now=lambda: NOW)
    runtime = SimpleNamespace(settings=settings, clock=clock, tracing=Tracing())
    instruments = SimpleNamespace(round_failed=lambda *_: None)
    sessions, nobody = SimpleNamespace(get=get, drop=drop), cast(Any, None)
    rounds = Rounds(cast(Any, runtime), nobody, cast(Any, sessions), cast(Any, instruments), uuid4())
    resource = Resource(
        id=uuid4(), revision=1, interval_s=20.0, provider="vsphere", url="https://vc", username="t",
        sealed_secret="s", ca_pem=None, thumbprint=None, settings={},
    )  # fmt: skip
    later = NOW + timedelta(seconds=20)
    watch = Watch(1, later, NOW, Backlog({"domain-c1": NOW}), (), 0.0, failures=0)
    await rounds.run(resource, watch)
    assert asked == [1], "nobody logged in again with the old one"
    assert dropped == [resource.id]
    assert (watch.due_at, watch.failures) == (NOW, 0)
