"""Reading what a newer writer says: a word that this process does not know becomes the one to be careful by.

Writers are strict: an event is made of known words only. A reader that refused a whole sample for one new word would
be deaf until it is upgraded. Fields that are plain text (`step`, `health`, `cause`) may have new words anyway.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from libs.common.contracts.base import Event
from libs.common.contracts.resource import Mode
from libs.common.contracts.supply import Scope, TemplateState
from libs.common.contracts.usage import Coming, Drs, Exposure, HostState, Quality

CAREFUL: dict[type[StrEnum], StrEnum] = {
    Mode: Mode.PAUSED,  # nothing new and nothing given up; observing would destroy what there is
    TemplateState: TemplateState.DRAFT,  # deploys nothing, drains nothing
    HostState: HostState.FAILED,  # carries nothing of ours
    Quality: Quality.BACKFILLED,  # raises no limit
    Exposure: Exposure.POOL_ALTERED,  # ours do not give way by themselves, for whatever reason
    Drs: Drs.ON,  # on, and how far is not told
    Coming: Coming.CALENDAR,  # keeps its room until it ends
}
"""By enum, what stands for its unknown words: on no account more may be done than the new word may allow."""
REFUSED: frozenset[type[StrEnum]] = frozenset({Scope})
"""Enums without such a word: what a policy is assigned to decides whose it is. The message waits among the dead."""

T = TypeVar("T")
E = TypeVar("E", bound=Event)
W = TypeVar("W", bound=StrEnum)
_NO_WORD = "\0"
_LONGEST_WORD = 40


@dataclass(frozen=True, slots=True)
class Strange:
    """A word that was not known, and what it was taken for."""

    field: str
    """Where, without positions: `samples.states`."""
    word: str
    taken_for: str


def read(event: type[E], body: bytes) -> tuple[E, frozenset[Strange]]:
    """The event in its wire form, and the words in it that were not known.

    Raises pydantic.ValidationError, the strict reader's own, on anything else that is wrong with it.
    """
    try:
        return event.decode(body), frozenset()
    except ValidationError as error:
        if not _is_of_words(error):
            raise
    return validate(event.model_validate, from_json(body))


def validate(strictly: Callable[[Any], T], document: Any) -> tuple[T, frozenset[Strange]]:
    """The same for what a newer process wrote into a row, read by `strictly`; the document is left as it is."""
    try:
        return strictly(document), frozenset()
    except ValidationError as error:
        if not _is_of_words(error):
            raise
        faults = error.errors(include_url=False)
    softened = deepcopy(document)
    strange = frozenset(_replace(softened, fault) for fault in faults)
    return strictly(softened), strange


def word_of(enum: type[W], word: str) -> W:
    """One word of such a row; an unknown one is the careful one. Raises KeyError for an enum without such a word."""
    try:
        return enum(word)
    except ValueError:
        return cast(W, CAREFUL[enum])


def _is_of_words(error: ValidationError) -> bool:
    faults = error.errors(include_url=False)
    return all(fault["type"] == "enum" and _enum_of(fault) is not None for fault in faults)


def _replace(document: Any, fault: Any) -> Strange:
    *path, last = fault["loc"]
    for step in path:
        document = document[step]
    document[last] = CAREFUL[_ENUMS[fault["ctx"]["expected"]]].value
    field = ".".join(step for step in fault["loc"] if isinstance(step, str))
    return Strange(field, fault["input"][:_LONGEST_WORD], document[last])


def _enum_of(fault: Any) -> type[StrEnum] | None:
    """The enum that has no such word; None where no word was said at all."""
    return _ENUMS.get(fault["ctx"]["expected"]) if isinstance(fault["input"], str) else None


def _expected(enum: type[StrEnum]) -> str:
    """How pydantic lists the words of an enum: its complaint names them, not the enum."""
    try:
        TypeAdapter(enum).validate_python(_NO_WORD)
    except ValidationError as error:
        return str(error.errors()[0]["ctx"]["expected"])
    raise TypeError(f"{enum.__name__} takes any word")


_ENUMS = {_expected(enum): enum for enum in CAREFUL}
