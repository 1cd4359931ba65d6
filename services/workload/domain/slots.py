"""Slots: the numbers in host names of a cluster's living machines, the lowest first, used again by successors."""

from collections.abc import Collection
from itertools import count, islice


def free_slots(taken: Collection[int], wanted: int) -> list[int]:
    """The lowest numbers from 1 on that no living machine has."""
    known = set(taken)
    return list(islice((slot for slot in count(1) if slot not in known), wanted))
