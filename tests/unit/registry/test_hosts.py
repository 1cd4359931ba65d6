"""What hosts are good for."""

import pytest

from services.registry.domain.hosts import HostClass, Metal, classify

GIB = 1024.0


@pytest.mark.parametrize(
    ("cores", "memory_gib", "gpus", "expected"),
    [
        (16, 256, 0, HostClass.LOW),
        (16, 256, 1, HostClass.MEDIUM_GPU),
        (16, 256, 3, HostClass.MEDIUM_GPU),
        (16, 256, 4, HostClass.HPC_GPU),
        (128, 1024, 16, HostClass.HPC_GPU),
        (2, 256, 8, HostClass.MEDIUM_GPU),
        (64, 3, 8, HostClass.MEDIUM_GPU),
        (0, 256, 8, HostClass.LOW),
        (16, 0, 8, HostClass.LOW),
        (16, 256, -1, HostClass.LOW),
        (16, 256, None, None),
    ],
)
def test_the_class_of_a_host(
    cores: int, memory_gib: float, gpus: int | None, expected: HostClass | None
) -> None:
    assert classify(Metal(cores, memory_gib * GIB, gpus)) == expected
