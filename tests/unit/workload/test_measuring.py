"""Machines as they are counted for `/metrics`: few labels, however many clusters."""

from uuid import UUID

from services.workload.usecases.measuring import MOST_CLUSTERS, label_machines

LAB = UUID(int=1)


def test_machines_are_counted_by_cluster_while_there_are_few_and_by_resource_beyond() -> None:
    few = {(LAB, UUID(int=n), state): 2 for n in range(MOST_CLUSTERS) for state in ("running", "lost")}
    assert label_machines(few)[(str(LAB), str(UUID(int=3)), "running")] == 2
    assert len(label_machines(few)) == 2 * MOST_CLUSTERS

    many = few | {(LAB, UUID(int=MOST_CLUSTERS), "running"): 1}
    assert label_machines(many) == {
        (str(LAB), "", "running"): 2 * MOST_CLUSTERS + 1,
        (str(LAB), "", "lost"): 2 * MOST_CLUSTERS,
    }
