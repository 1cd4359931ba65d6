"""The life of a template version, as data."""

from collections.abc import Mapping
from enum import StrEnum

from libs.common.contracts.supply import TemplateState


class Verb(StrEnum):
    """What a person can do with a version."""

    APPROVE = "approve"
    REVOKE = "revoke"


TRANSITIONS: Mapping[tuple[TemplateState, Verb], TemplateState] = {
    (TemplateState.DRAFT, Verb.APPROVE): TemplateState.APPROVED,
    (TemplateState.DRAFT, Verb.REVOKE): TemplateState.REVOKED,
    (TemplateState.APPROVED, Verb.REVOKE): TemplateState.REVOKED,
}
"""Revoked is the end: an image that was withdrawn comes back as a new version."""


def follow(state: TemplateState, verb: Verb) -> TemplateState | None:
    """The state after the verb; None when it is not possible now."""
    return TRANSITIONS.get((state, verb))
