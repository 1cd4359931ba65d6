"""The vSphere driver keeps what every driver must keep: on vcsim, and behind a proxy that is as strict as a vCenter."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.providers.suite import ProviderSuite
from tests.contract.providers.vsphere_target import VSphereTarget, opened
from tests.faultproxy import FaultProxy
from tools.parts.vcsim import Vcsim

STEADY = ("-perf-default", "1")


class TestVcsim(ProviderSuite):
    @pytest.fixture
    async def target(self, vcsim: Vcsim) -> AsyncIterator[VSphereTarget]:
        await vcsim.start(hosts=3, vms=1, flags=STEADY)
        async with opened(vcsim) as target:
            yield target


class TestStrictProxy(ProviderSuite):
    @pytest.fixture
    async def target(self, vcsim: Vcsim) -> AsyncIterator[VSphereTarget]:
        await vcsim.start(hosts=3, vms=1, flags=STEADY)
        async with FaultProxy.before(vcsim) as proxy:
            proxy.rules.page_size = 2
            async with opened(vcsim, proxy.url) as target:
                yield target
