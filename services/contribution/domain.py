"""What counts as a machine of a contribution, and which keys may reach one."""

from enum import IntEnum
from uuid import UUID

from libs.boinc.account import KeyKind, kind_of

MOST_RESOURCES = 1000
MOST_PER_ORGANISATION = 12
"""Every machine attaches to all of them, and a guest's user-data holds 16 KiB."""


class Stage(IntEnum):
    """How far along a machine is; facts may come in any order, the furthest counts."""

    REQUESTED = 1
    RUNNING = 2
    DRAINING = 3
    DESTROYED = 4


class RefusedKey(ValueError):
    """The key must not be kept; the message is a sentence without the key."""


def check_key(authenticator: str) -> None:
    """Insist on a weak account key. Raises RefusedKey."""
    match kind_of(authenticator):
        case KeyKind.WEAK:
            return
        case KeyKind.STRONG:
            raise RefusedKey(
                "This is a strong account key: it can log in and change the account, so it must not reach guests. "
                "Give the weak account key, `<user id>_<32 hex digits>`."
            )
        case _:
            raise RefusedKey("A weak account key looks like `<user id>_<32 hex digits>`.")


def works_for(resource_id: UUID, resource_ids: list[UUID] | None) -> bool:
    """Whether machines of the resource work for a contribution that names these; None: all of them."""
    return resource_ids is None or resource_id in resource_ids
