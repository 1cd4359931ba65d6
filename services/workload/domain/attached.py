"""What a machine was attached to when it was made, against what it would be attached to now.

Keys stand here by an id only: a digest that says whether two are the same and lets nobody attach.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

MANAGER: dict[str, Any] = {"by": "manager", "to": []}
"""The account manager tells the machine its projects, and it follows by itself."""
_PARTS = 1000


@dataclass(frozen=True, slots=True)
class Lent:
    """A project that a machine would be attached to now."""

    url: str
    weight: float
    key_id: str | None
    """None: the key cannot be read just now, and nothing is concluded from it."""


class Urgency(StrEnum):
    """How soon a machine that is out of date goes."""

    AT_ONCE = "at_once"
    """It works for somebody to whom nothing is lent any more."""
    GRADUALLY = "gradually"


@dataclass(frozen=True, slots=True)
class Outdated:
    """Why a machine is to be replaced by one that is made now."""

    urgency: Urgency
    why: str


def key_id(contribution_id: UUID, key: str) -> str:
    """The id of a contribution's key."""
    return sha256(b"tides/key-id/" + contribution_id.bytes + key.encode()).hexdigest()[:16]


def by_files(lent: Sequence[Lent]) -> dict[str, Any]:
    """What is kept with a machine that gets its projects as files: address, key's id, share in thousandths."""
    whole = sum(each.weight for each in lent) or 1.0
    to = [[each.url, each.key_id, round(_PARTS * each.weight / whole)] for each in lent]
    return {"by": "files", "to": sorted(to, key=str)}


def joined(known: Mapping[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """What a machine may have that was asked for more than once: nobody knows which of the files it got."""
    if known is None or known == now:
        return now
    to = {str(each): each for each in [*known.get("to", ()), *now.get("to", ())]}
    return {
        "by": now["by"] if known.get("by") == now["by"] else "either",
        "to": [to[name] for name in sorted(to)],
    }


def why_outdated(
    attached: Mapping[str, Any] | None, now: Mapping[str, Any], stood_in: Collection[str] = ()
) -> Outdated | None:
    """Whether, how soon and why a machine is to be replaced; None: it is as it would be made now.

    One of which it is not known (an older Tides made it) is replaced where machines are attached by files, for it may
    hold the key of whatever was lent then; the account manager's are told their projects anyway. `stood_in` are
    projects for whose own clouds this one may stand in: with those back nothing goes at once that works for others too.
    """
    by_manager = now["by"] == "manager"
    if attached is None:
        unknown = "it is not known what it was attached to when it was made"
        return None if by_manager else Outdated(Urgency.GRADUALLY, unknown)
    left = [] if by_manager else sorted(_by_url(attached).keys() - _by_url(now).keys())
    if left:
        why = f"it is attached to {left[0]}, to which nothing is lent here any more"
        may_wait = set(left) <= set(stood_in) and _by_url(attached).keys() & _by_url(now).keys()
        return Outdated(Urgency.GRADUALLY if may_wait else Urgency.AT_ONCE, why)
    if attached.get("by") != now["by"]:
        what = "Tides is its account manager" if by_manager else "machines get their projects as files"
        return Outdated(Urgency.GRADUALLY, f"it was made in another way: now {what}")
    why_not = next(_differences(attached, now), None)
    return None if why_not is None else Outdated(Urgency.GRADUALLY, why_not)


def _differences(attached: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    was, shall = _by_url(attached), _by_url(now)
    if len(attached.get("to", ())) != len(was):
        yield "what is lent was changed while it was made"
    for url, (key, _) in sorted(shall.items()):
        if url not in was:
            yield f"it is not attached to {url}, to which is lent now"
        elif None not in (key, was[url][0]) and key != was[url][0]:
            yield f"its key for {url} was changed"
    if any(url in was and was[url][1] != share for url, (_, share) in shall.items()):
        yield "the shares of its projects were changed"


def _by_url(attached: Mapping[str, Any]) -> dict[str, tuple[str | None, int]]:
    return {url: (key, share) for url, key, share in attached.get("to", ())}
