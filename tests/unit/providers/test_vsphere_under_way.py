"""What a driver remembers of clones that outlast their session, and for how long."""

from typing import Any, cast
from uuid import uuid4

import pytest

from libs.common.clock import WallClock
from libs.common.secrets import KEY_BYTES, Vault
from libs.providers.base import Connection, Unavailable, sealing_context
from libs.providers.vsphere.clones import LONGEST_S, UnderWay
from libs.providers.vsphere.driver import VSphereDriver


async def test_resources_that_came_and_went_leave_nothing_behind() -> None:
    driver, vault, url = VSphereDriver(), Vault({"k1": b"k" * KEY_BYTES}), "https://127.0.0.1:1/sdk"
    for _ in range(5):
        sealed = vault.seal("password", sealing_context(url, None, None))
        with pytest.raises(Unavailable):
            await driver.open(Connection(uuid4(), uuid4(), url, "tides", sealed), vault, WallClock())
    assert len(driver._under_way) == 1


def test_a_clone_is_remembered_while_it_may_still_run() -> None:
    under_way = UnderWay(users=1)
    assert not under_way.is_over(LONGEST_S * 9)
    under_way.users = 0
    assert under_way.is_over(0.0)
    under_way.clones["tides-1"] = cast(Any, object())
    assert not under_way.is_over(LONGEST_S - 1)
    assert under_way.is_over(LONGEST_S + 1)
