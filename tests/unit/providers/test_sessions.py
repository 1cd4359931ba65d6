"""Sessions of one process: kept through outages, given up where they are spent, never opened with an old password."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from libs.common.clock import WallClock
from libs.common.secrets import KEY_BYTES, Vault
from libs.providers.base import Cause, Connection, Full, LoginRefused, Rejected, Unavailable, sealing_context
from libs.providers.sessions import STUBBORN, Sessions, is_spent
from tests.service.scripted_cloud import Script, installed
from tests.support import until

URL = "https://vc.example"


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    with installed(tmp_path) as driver:
        driver.clouds["vc.example"] = Script()
        yield driver.clouds["vc.example"]


@pytest.fixture
def vault() -> Vault:
    return Vault({"k1": b"k" * KEY_BYTES})


@pytest.fixture
async def sessions(vault: Vault) -> AsyncIterator[Sessions]:
    held = Sessions(vault, WallClock())
    yield held
    await held.aclose()


def connect(vault: Vault, password: str) -> Connection:
    sealed = vault.seal(password, sealing_context(URL, None, None))
    return Connection(uuid4(), uuid4(), URL, "tides", sealed, revision=1)


async def test_who_began_before_a_new_password_gets_the_new_session_and_tries_no_old_password(
    sessions: Sessions, vault: Vault, script: Script
) -> None:
    old = connect(vault, script.password)
    first = await sessions.get("scripted", old)
    script.password = "changed"
    sealed = vault.seal("changed", sealing_context(URL, None, None))
    second = await sessions.get("scripted", replace(old, sealed_secret=sealed, revision=2))
    assert second is not first
    assert await sessions.get("scripted", old) is second
    assert script.logins == [("tides", "correct horse"), ("tides", "changed")]
    assert script.closed == 1


async def test_a_new_name_of_a_resource_opens_nothing(
    sessions: Sessions, vault: Vault, script: Script
) -> None:
    connection = connect(vault, script.password)
    first = await sessions.get("scripted", connection)
    assert await sessions.get("scripted", replace(connection, revision=2)) is first
    assert script.opened == 1


async def test_who_used_an_old_session_does_not_end_the_one_that_took_its_place(
    sessions: Sessions, vault: Vault, script: Script
) -> None:
    old = connect(vault, script.password)
    await sessions.get("scripted", old)
    sealed = vault.seal(script.password, sealing_context(URL, None, None))
    new = replace(old, sealed_secret=sealed, revision=2)
    second = await sessions.get("scripted", new)
    await sessions.drop_used(old)
    assert await sessions.get("scripted", new) is second
    await sessions.drop_used(new)
    assert script.closed == 2


def test_a_session_ends_with_what_makes_it_useless_and_outlives_everything_else() -> None:
    for cause in Cause:
        for kind in (Rejected, Unavailable, Full):
            assert is_spent(kind(cause, "")) == (cause in (Cause.AUTH, Cause.TLS))
    assert is_spent(KeyError("a driver that broke"))
    assert not is_spent(TimeoutError())
    outage = Unavailable(Cause.UNREACHABLE, "503")
    assert [count for count in range(1, 12) if is_spent(outage, count)] == [STUBBORN, 2 * STUBBORN]


async def test_others_go_on_while_a_vendors_library_is_loaded(
    sessions: Sessions, vault: Vault, script: Script, tmp_path: Path
) -> None:
    (tmp_path / "slow_library.py").write_text(
        "import threading\n"
        "loaded = threading.Event()\n"
        "assert loaded.wait(30), 'nobody else got to do anything'\n"
        "from tests.service.scripted_cloud import driver\n"
    )
    (tmp_path / "scripted_cloud-1.dist-info" / "entry_points.txt").write_text(
        "[tides.providers]\nslow = slow_library:driver\n"
    )

    async def somebody_else() -> None:
        await until(
            lambda: hasattr(sys.modules.get("slow_library"), "loaded"), what="the library began to load"
        )
        sys.modules["slow_library"].loaded.set()

    opened, _ = await asyncio.gather(sessions.get("slow", connect(vault, script.password)), somebody_else())
    assert opened is not None


async def test_who_waits_while_a_login_is_refused_tries_no_second_one(
    sessions: Sessions, vault: Vault, script: Script
) -> None:
    wrong = connect(vault, "wrong")
    found = await asyncio.gather(*(sessions.get("scripted", wrong) for _ in range(4)), return_exceptions=True)
    assert [type(each) for each in found] == [LoginRefused] * 4
    assert len(script.logins) == 1
    with pytest.raises(LoginRefused):
        await sessions.get("scripted", wrong)
    assert len(script.logins) == 2, "who comes afterwards may try"
    _, kept = sessions._refused[wrong.resource_id]
    assert kept.__traceback__ is None, "frames hold the password that was tried"
