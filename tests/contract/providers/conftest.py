"""A vCenter behind the fault proxy; a file that needs another size overrides `cloud`."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.providers.vsphere_target import VSphereTarget, opened
from tests.faultproxy import FaultProxy
from tools.parts.vcsim import Vcsim


@pytest.fixture
def cloud() -> dict[str, Any]:
    """What vcsim is started with."""
    return {"hosts": 2, "vms": 1, "flags": ("-perf-default", "1")}


@pytest.fixture
async def proxy(vcsim: Vcsim, cloud: dict[str, Any]) -> AsyncIterator[FaultProxy]:
    """Stands before a vCenter that runs."""
    await vcsim.start(**cloud)
    async with FaultProxy.before(vcsim) as proxy:
        yield proxy


@pytest.fixture
async def target(vcsim: Vcsim, proxy: FaultProxy) -> AsyncIterator[VSphereTarget]:
    """The vCenter as it is seen through the proxy, which is healed at the end."""
    async with opened(vcsim, proxy.url) as target:
        yield target
        proxy.rules.heal()
