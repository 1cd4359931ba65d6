"""Parts of hosts as sizes of machines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.harvest.sizes import HostSize, derive

GIB = 1024


def told(*hosts: HostSize) -> dict[str, tuple[int, float]]:
    return {one.name: (one.vcpus, one.memory_mib / GIB) for one in derive(hosts)}


def host(cores: int, memory_gib: float, nodes: int | None = None) -> HostSize:
    return HostSize(cores, 2600.0 * cores, memory_gib * GIB, nodes)


@pytest.mark.parametrize(
    ("hosts", "sizes"),
    [
        ([], {}),
        ([host(0, 64)], {}),
        ([host(16, 256)], {"whole": (15, 216), "half": (8, 115), "quarter": (4, 57), "eighth": (2, 28)}),
        ([host(16, 256, 2)], {"half": (8, 115), "quarter": (4, 57), "eighth": (2, 28)}),
        ([host(16, 256, 4)], {"quarter": (4, 57), "eighth": (2, 28)}),
        ([host(18, 256, 4)], {"quarter": (4, 51), "eighth": (2, 25)}),
        ([host(2, 4)], {"whole": (1, 1), "half": (1, 1)}),
        ([host(1, 4)], {"whole": (1, 2)}),
        ([host(4, 2)], {}),
        ([host(0, 1), host(64, 512), host(16, 256)], told(host(16, 256))),
        ([host(16, 512, 2), host(32, 128)], {"half": (8, 57), "quarter": (4, 28), "eighth": (2, 14)}),
    ],
)
def test_the_smallest_host_makes_the_sizes(
    hosts: list[HostSize], sizes: dict[str, tuple[int, float]]
) -> None:
    assert told(*hosts) == sizes


HOSTS = st.builds(
    HostSize,
    st.integers(0, 1024),
    st.floats(0.0, 1e7),
    st.floats(0.0, 1e8),
    st.sampled_from([None, 0, 1, 2, 3, 8]),
)


@given(st.lists(HOSTS, max_size=5))
def test_every_size_fits_every_host_and_crosses_no_node(hosts: list[HostSize]) -> None:
    sizes = derive(hosts)
    assert [one.vcpus for one in sizes] == sorted((one.vcpus for one in sizes), reverse=True)
    for one in sizes:
        assert 1 <= one.vcpus <= 256
        assert 512 <= one.memory_mib <= 4_194_304
        for each in hosts:
            assert each.cores == 0 or one.vcpus <= each.cores // max(1, each.numa_nodes or 1)
            assert each.cores == 0 or one.memory_mib <= 0.9 * each.memory_mib
