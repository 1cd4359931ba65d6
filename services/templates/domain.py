"""The life of a template version, as data."""

from collections.abc import Mapping
from enum import StrEnum

from libs.common.contracts.supply import TemplateState


class Verb(StrEnum):
    """What a person can do with a version."""

    APPROVE = "approve"
    REVOKE = "revoke"


class Outcome(StrEnum):
    """How a derivation goes."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


REMEDIES = {
    "waiting": "Mend what the reason names (a policy in force, a host with room and idle CPU), or give it longer.",
    "requested": "See `tides events` and what the cloud says about clones of this template.",
    "running": "See the builder's console: it repeats until packages can be fetched; name a proxy where one is needed.",
    "ended": "Mend what the reason names, then derive again.",
}
"""What a person can do about a derivation that failed, by how far it had come."""


TRANSITIONS: Mapping[tuple[TemplateState, Verb], TemplateState] = {
    (TemplateState.DRAFT, Verb.APPROVE): TemplateState.APPROVED,
    (TemplateState.DRAFT, Verb.REVOKE): TemplateState.REVOKED,
    (TemplateState.APPROVED, Verb.REVOKE): TemplateState.REVOKED,
}
"""Revoked is the end: an image that was withdrawn comes back as a new version."""


def follow(state: TemplateState, verb: Verb) -> TemplateState | None:
    """The state after the verb; None when it is not possible now."""
    return TRANSITIONS.get((state, verb))
