"""Identifiers: time-ordered for rows, derived where two processes must agree without talking."""

from functools import lru_cache
from uuid import UUID, uuid5

import uuid_utils.compat

_CLUSTERS = UUID("6f1f3c9e-6f0a-5b53-9d6c-0f2a7f3f4a10")
_SAMPLES = UUID("3d1a2f6c-18b2-5d0e-8a7b-6b1f0c9d2e44")
_STATES = UUID("b7a6c1de-4f5c-5c1d-9f0e-2a3b4c5d6e7f")


def new_id() -> UUID:
    """A fresh UUIDv7: unique, and ordered by the time it was made."""
    return uuid_utils.compat.uuid7()


@lru_cache(maxsize=2**16)  # every sample asks; some 20 MB when it is full
def cluster_id(resource_id: UUID, cluster_ref: str) -> UUID:
    """The id of a cluster, the same in every service: derived from its resource and the cloud's own reference."""
    return uuid5(_CLUSTERS, f"{resource_id}/{cluster_ref}")


def sample_id(resource_id: UUID, tick: str) -> UUID:
    """The id of one round of samples of a resource: publishing a tick twice is one message."""
    return uuid5(_SAMPLES, f"{resource_id}/{tick}")


def state_id(key: str, subject: str, revision: int) -> UUID:
    """The id of a state event: the same state is the same message, however often it is published."""
    return uuid5(_STATES, f"{key}/{subject}/{revision}")
