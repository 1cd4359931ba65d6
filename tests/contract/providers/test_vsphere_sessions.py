"""A session with a vCenter: through outages, limits, idle hours, new passwords and certificates, without a restart."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from uuid import uuid4

import pytest

from libs.common.clock import WallClock
from libs.providers.base import (
    Cause,
    Connection,
    LoginRefused,
    ProviderError,
    Rejected,
    Unavailable,
    sealing_context,
)
from libs.providers.sessions import Sessions, is_spent
from libs.providers.vsphere import session
from tests.contract.providers.target import deploy, seen
from tests.contract.providers.vsphere_target import VSphereTarget, opened
from tests.faultproxy import FaultProxy, Late
from tests.support import until
from tools.parts.vcsim import Vcsim, certificate_thumbprint, renew_certificate, write_certificates

# Who shows another certificate meets clients that hang up amid the handshake; only the collector ends that: here.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
async def sessions(target: VSphereTarget) -> AsyncIterator[Sessions]:
    """As a service holds them."""
    held = Sessions(target.vault, WallClock())
    yield held
    await held.aclose()


def connect(target: VSphereTarget, password: str | None = None, revision: int = 1) -> Connection:
    connection = target.connection(password or target.vcsim.password, target.vcsim.ca_file.read_text())
    return replace(connection, settings={"network": target.network}, revision=revision)


async def fails(attempt: object) -> ProviderError:
    with pytest.raises(ProviderError) as refusal:
        await attempt  # type: ignore[misc]
    return refusal.value


@pytest.mark.parametrize(("status", "cause"), [(503, Cause.UNREACHABLE), (429, Cause.THROTTLED)])
async def test_a_server_that_asks_for_patience_is_understood_and_the_session_outlasts_it(
    target: VSphereTarget, proxy: FaultProxy, status: int, cause: Cause
) -> None:
    await target.provider.sample(None)
    logins = proxy.calls["Login"]
    proxy.rules.status["*"], proxy.rules.retry_after = status, "45"
    for _ in range(3):
        for attempt in (target.provider.sample(None), target.provider.machines()):
            error = await fails(attempt)
            assert (type(error), error.cause, error.retry_after_s) == (Unavailable, cause, 45.0)
            assert not is_spent(error)
    error = await fails(target.open(target.vcsim.password))
    assert (error.cause, error.retry_after_s) == (cause, 45.0), "nor is a version guessed meanwhile"
    for odd in ("soon", "-1", "9" * 40, "Fri, 27 Nov 2026 18:00:00 GMT"):
        proxy.rules.retry_after = odd
        assert (await fails(target.provider.machines())).retry_after_s is None
    proxy.rules.heal()
    assert await target.provider.machines() == []
    assert await target.provider.sample(None)
    assert proxy.calls["Login"] == logins


async def test_a_vcenter_that_restarts_costs_one_login_and_nothing_else(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    await target.provider.sample(None)
    logins, counted = proxy.calls["Login"], proxy.obeyed["RetrievePropertiesEx"]
    proxy.restart()
    proxy.rules.status["*"] = 503
    await fails(target.provider.sample(None))
    proxy.rules.heal()
    assert await target.provider.sample(None)
    assert await target.provider.machines() == []
    assert proxy.calls["Login"] == logins + 1
    assert proxy.obeyed["RetrievePropertiesEx"] > counted


async def test_where_no_session_is_left_it_is_an_outage_and_none_is_wasted(
    target: VSphereTarget, proxy: FaultProxy, sessions: Sessions
) -> None:
    proxy.rules.most_sessions = 1  # the target's own
    connection = connect(target)
    for _ in range(3):
        error = await fails(sessions.get("vsphere", connection))
        assert (type(error), error.cause) == (Unavailable, Cause.UNREACHABLE)
    assert await target.provider.machines() == [], "who has a session keeps it"
    await target.provider.aclose()
    held = await sessions.get("vsphere", connection)
    for method in ("RetrievePropertiesEx", "QueryPerf"):
        proxy.rules.break_off[method] = 1
        assert not is_spent(await fails(held.sample(None)))
    assert await held.sample(None)
    assert (len(proxy.sessions.live), proxy.sessions.most) == (1, 1)


async def test_a_session_whose_login_was_refused_tries_none_again(
    target: VSphereTarget, proxy: FaultProxy, sessions: Sessions
) -> None:
    held = await sessions.get("vsphere", connect(target))
    proxy.accounts.locked = {target.vcsim.username}
    proxy.restart()
    tried = proxy.calls["Login"]
    calls = (held.machines(), held.sample(None), held.validate())
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, LoginRefused), error
    assert isinstance(await fails(held.machines()), LoginRefused)
    assert proxy.calls["Login"] == tried + 1
    proxy.accounts.locked.clear()
    await sessions.drop(connect(target).resource_id)
    assert await (await sessions.get("vsphere", connect(target))).machines() == []


async def test_an_idle_session_is_kept_and_one_that_ended_is_opened_again(
    vcsim: Vcsim, monkeypatch: pytest.MonkeyPatch
) -> None:
    await vcsim.start(hosts=1, vms=1, flags=("-perf-default", "1", "-session-idle", "2s"))
    async with FaultProxy.before(vcsim) as proxy, opened(vcsim, proxy.url) as left:
        monkeypatch.setattr(session, "KEEP_ALIVE_S", 0.3)
        async with opened(vcsim, proxy.url) as kept:
            assert proxy.calls["Login"] == 2
            await asyncio.sleep(4.2)  # the vCenter looks every 2 s whether a session was idle for as long
            asked = proxy.calls["CurrentTime"]
            assert asked >= 3
            assert await kept.provider.machines() == []
            assert proxy.calls["Login"] == 2
            assert await left.provider.machines() == []
            assert proxy.calls["Login"] == 3
            asked = proxy.calls["CurrentTime"]
            proxy.restart()
            await until(lambda: proxy.calls["CurrentTime"] > asked, what="another question for the time")
            await asyncio.sleep(0.7)
            assert proxy.calls["Login"] == 3, "nobody logs in for that, perhaps with an old password"
            assert await kept.provider.machines() == []
            assert proxy.calls["Login"] == 4
        asked = proxy.calls["CurrentTime"]
        await asyncio.sleep(0.5)
        assert proxy.calls["CurrentTime"] == asked, "a closed session asks for nothing"


async def test_a_new_password_ends_the_session_and_not_the_clone_that_it_began(
    target: VSphereTarget, proxy: FaultProxy, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.providers.vsphere.deploy.CLONE_WAIT_S", 0.2)
    wanted, unwanted = target.make_spec(), target.make_spec()
    first = connect(target)
    held = await sessions.get("vsphere", first)
    proxy.rules.late["CloneVM_Task"] = Late(600.0)
    await held.create(wanted)
    await held.create(unwanted)

    wrong = replace(first, sealed_secret=connect(target, "not the password").sealed_secret, revision=2)
    error = await fails(sessions.get("vsphere", wrong))
    assert (type(error), error.cause) == (LoginRefused, Cause.AUTH)
    assert is_spent(error)
    right = replace(first, sealed_secret=connect(target).sealed_secret, revision=3)
    target.provider = await sessions.get("vsphere", right)
    assert target.provider is not held
    assert len(proxy.sessions.live) == 2, "ours, and the target's own"

    async def progressed() -> bool:
        machine = await seen(target, wanted.name)
        return machine is not None and machine.progress is not None

    await until(progressed, what="progress in the new session")
    machine = await seen(target, unwanted.name)
    assert machine is not None
    assert (machine.configured, machine.task, machine.mark) == (False, "VirtualMachine.clone", unwanted.mark)
    await target.provider.delete(unwanted.name)
    assert proxy.tasks.cancelled == 1
    assert await seen(target, unwanted.name) is None
    proxy.rules.late.clear()
    proxy.tasks.release()
    assert (await deploy(target, wanted)).configured
    assert (await target.back_door.names()).count(wanted.name) == 1
    assert proxy.calls["CloneVM_Task"] == 2


async def test_a_renewed_certificate_of_the_same_authority_is_believed_at_once(
    target: VSphereTarget, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory
) -> None:
    await target.provider.sample(None)
    renewed, stranger = tmp_path_factory.mktemp("renewed"), tmp_path_factory.mktemp("stranger")
    renew_certificate(target.vcsim.ca_file.parent, renewed)
    write_certificates(stranger)
    logins = proxy.calls["Login"]
    await proxy.present(renewed)
    assert await target.provider.sample(None)
    assert await target.provider.machines() == []
    assert proxy.calls["Login"] == logins
    await proxy.present(stranger)
    proxy.calls.clear()
    for attempt in (target.provider.sample(None), target.provider.machines()):
        error = await fails(attempt)
        assert (type(error), error.cause) == (Rejected, Cause.TLS)
        assert certificate_thumbprint(stranger) in error.detail
    assert not proxy.calls


async def test_a_changed_thumbprint_is_refused_with_both_named_until_the_new_one_is_given(
    target: VSphereTarget, proxy: FaultProxy, sessions: Sessions, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pinned = target.connection(target.vcsim.password, thumbprint=target.vcsim.thumbprint)
    held = await sessions.get("vsphere", pinned)
    await held.sample(None)
    renewed = tmp_path_factory.mktemp("renewed")
    renew_certificate(target.vcsim.ca_file.parent, renewed)
    await proxy.present(renewed)
    proxy.calls.clear()
    old, new = target.vcsim.thumbprint.replace(":", "").lower(), certificate_thumbprint(renewed)
    for attempt in (held.sample(None), held.machines()):
        error = await fails(attempt)
        assert (type(error), error.cause) == (Rejected, Cause.TLS)
        assert new in error.detail
        assert old in error.detail
    assert not proxy.calls, "nothing was sent"
    sealed = target.vault.seal(target.vcsim.password, sealing_context(target.url, None, new))
    changed = replace(pinned, thumbprint=new, sealed_secret=sealed, revision=2)
    assert await (await sessions.get("vsphere", changed)).sample(None)


async def test_another_installation_does_not_take_up_what_was_begun_here(
    target: VSphereTarget, proxy: FaultProxy, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.providers.vsphere.deploy.CLONE_WAIT_S", 0.1)
    connection = connect(target)
    held = await sessions.get("vsphere", connection)
    proxy.rules.late["CloneVM_Task"] = Late(60.0)
    await held.create(target.make_spec())
    other = await sessions.get("vsphere", replace(connection, installation_id=uuid4()))
    assert await other.machines() == []
