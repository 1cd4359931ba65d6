"""Where a builder of images has room: what stays free of lent machines stays free of it, too."""

from typing import Any

import pytest

from services.workload.models import Cluster
from services.workload.usecases.deriving import choose_host

DECISION = {
    "rung": 0,
    "budgets": [{"host": "h1", "budget_mhz": 5000.0}, {"host": "h2", "budget_mhz": 9000.0}],
}
SAMPLE = {
    "hosts": ["h1", "h2"], "states": ["connected", "connected"], "memory_capacity_mib": [65536, 65536],
    "memory_used_mib": [8192, 8192], "datastore_free_gib": 400.0, "datastore_capacity_gib": 1000.0,
}  # fmt: skip


def a_cluster(**sample: Any) -> Cluster:
    return Cluster(
        name="lab", decision=DECISION, sample=SAMPLE | sample, floor_mhz_per_vcpu=200.0, draining=False
    )


def test_the_host_with_most_idle_cpu_that_has_the_memory() -> None:
    assert choose_host(a_cluster(), 16.0) == ("h2", "")
    assert choose_host(a_cluster(memory_used_mib=[8192, 60000]), 16.0) == ("h1", "")
    assert choose_host(a_cluster(states=["connected", "maintenance"]), 16.0) == ("h1", "")


@pytest.mark.parametrize(
    ("free_gib", "size_gib", "least_free", "fits"),
    [
        (None, None, 0.15, True),
        (400.0, 1000.0, 0.15, True),
        (400.0, 1000.0, 0.40, False),
        ("NaN", 1000.0, 0.15, False),
        (400.0, "NaN", 0.15, False),
        (400.0, None, 0.15, False),
        (2000.0, 1000.0, 0.15, False),
        (-1.0, 0.0, 0.15, False),
    ],
)
def test_a_datastore_is_kept_as_free_as_the_policy_says_and_what_cannot_be_believed_is_full(
    free_gib: Any, size_gib: Any, least_free: float, fits: bool
) -> None:
    cluster = a_cluster(datastore_free_gib=free_gib, datastore_capacity_gib=size_gib)

    host, why = choose_host(cluster, 16.0, least_free)

    assert (host is not None) is fits
    assert fits or "datastore" in why
