"""What counts as a machine of a contribution, which keys may reach one, and what its client is told."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from uuid import UUID

from libs.boinc.account import KeyKind, canonical_url, kind_of
from libs.boinc.credit import possible_s
from libs.boinc.manager import ProjectAccount, ReportedProject

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


def is_key_refused(text: str) -> bool:
    """Whether a project's complaint to a client is about the account's key, in the words of BOINC's own server."""
    said = text.casefold()
    return "account key" in said and any(word in said for word in ("invalid", "missing", "unknown", "bad"))


def works_for(resource_id: UUID, resource_ids: list[UUID] | None) -> bool:
    """Whether machines of the resource work for a contribution that names these; None: all of them."""
    return resource_ids is None or resource_id in resource_ids


class AccountState(IntEnum):
    """How far an account at a project is."""

    ASKED = 1
    """It is made or looked up when the project is next asked."""
    READY = 2
    REFUSED = 3
    """The project did not let it in; a person must say what next."""


NOBODY = UUID(int=0)
"""Stands for the machine of a host that is none of ours."""
CREATED_BEFORE = timedelta(hours=1)
"""By so much a project's clock may be behind ours where it tells when a host was new."""
MOST_CREDIT = 1e15
"""No host has more; what says so is not counted."""


def first_total(total: float, created_at: float, machine_since: datetime | None) -> float:
    """The credit that a host had before it was ours, when it is first seen.

    Nothing where the host was made with the machine; all of it for anybody else's host, or one that is older than
    its machine: it was somebody else before.
    """
    if machine_since is None or created_at < (machine_since - CREATED_BEFORE).timestamp():
        return total
    return 0.0


def gain_of(total: float, counted: float) -> tuple[float, float]:
    """Credit that came since it was counted, and how far it is counted now. One that fell begins anew from there."""
    if not 0 <= total <= MOST_CREDIT:
        return 0.0, counted
    return max(0.0, total - counted), total


def rest_s(failures: int, chance: float) -> float:
    """How long a project that fails is left alone: five minutes, doubled each time up to six hours, scattered by a
    quarter; `chance` is from 0 to 1."""
    return min(21_600.0, 300.0 * 2.0 ** min(failures - 1, 10)) * (0.75 + 0.5 * chance)


def expected_core_hours(cores: float, cpu_s: float, elapsed_s: float) -> float:
    """Core-hours in the next day if it goes on as it did in `elapsed_s`; never more than the cores have."""
    as_before = cpu_s / 3600 * 86_400 / max(3600.0, elapsed_s)
    return round(min(cores * 24, as_before), 3)


class Standing(IntEnum):
    """What a machine's token is good for."""

    CURRENT = 1
    NEXT = 2
    """Told to the client, not yet seen from it; its predecessor stays good until then."""
    SPENT = 3
    """Whoever comes with it has it from somewhere else."""


FIRST_REPEAT_S = 30
"""Until the client has its own token, its projects and their shares, while that is news to it."""
NEWS = timedelta(minutes=15)
"""A client that has not followed by then is not asked more often for it."""
REPEAT_S = 300
TROUBLE_REPEAT_S = 60
ROTATE_EVERY = timedelta(days=1)


HEARTBEAT_S = 60.0
"""Ten thousand machines are 170 beats a second; a drain begins a minute late at most."""
DEAD_MAN_S = 900.0
DRAIN = "drain"
"""The id of a machine's one drain."""
_USUAL_GRACE_S = 600.0
_RESERVE_S = 15.0
"""For the outcome's way back, and for BOINC's end."""


@dataclass(frozen=True, slots=True)
class Lent:
    """A project that a machine shall work for."""

    url: str
    signature: str
    weight: float
    authenticator: str = field(repr=False)
    """The weak account key."""


def token_hash(token: str) -> str:
    """By which a token is known; the token itself is kept nowhere."""
    return hashlib.sha256(token.encode()).hexdigest()


def next_token(token: str, nonce: str) -> str:
    """The token after this one: the same at every asking, and known to nobody who has only one of the two."""
    mixed = hmac.new(token.encode(), b"tides/next-token/" + nonce.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(mixed).decode().rstrip("=")


def accounts_for(
    lent: Sequence[Lent], reported: Sequence[ReportedProject], *, draining: bool
) -> tuple[ProjectAccount, ...]:
    """What the client shall do about each project: those lent to it, and those that it must leave."""
    wanted = [
        ProjectAccount(
            each.url,
            each.signature,
            each.authenticator,
            each.weight,
            dont_request_more_work=draining,
            abort_not_started=draining,
            update=draining,
        )
        for each in lent
    ]
    leaving = {
        url for project in reported if project.attached_by_manager and (url := _canonical(project.url))
    }
    leaving -= {each.url for each in lent}
    return (*wanted, *(ProjectAccount(url, detach_when_done=True) for url in sorted(leaving)))


def is_settled(accounts: Sequence[ProjectAccount], reported: Sequence[ReportedProject]) -> bool:
    """Whether the client has done all of it, so that it need not come again soon."""
    shares = {project.url: project.resource_share for project in reported}
    leaving = {_canonical(project.url) for project in reported if project.detach_when_done}

    def is_done(account: ProjectAccount) -> bool:
        share = account.resource_share
        if share is None:
            return account.url in leaving
        return abs(shares.get(account.url, -1.0) - share) <= 1e-5 * share + 1e-6 and not account.update

    return all(is_done(account) for account in accounts)


def claim(counted_s: float, reported_s: float, vcpus: int, elapsed_s: float) -> float:
    """CPU seconds beyond those that were counted, as far as the machine can have spent them since.

    What is too much now is counted later, if it was true; a counter that falls counts nothing.
    """
    return possible_s(reported_s - counted_s, max(1, vcpus), elapsed_s)


class Health(StrEnum):
    """How a machine does, as its agent and its client tell."""

    AWAITED = "awaited"
    """Its agent has not enrolled yet."""
    ABSENT = "absent"
    """It has run for long enough, and its agent was never heard of."""
    ENROLLED = "enrolled"
    """Its agent is known, and has told nothing yet."""
    SILENT = "silent"
    HELD = "held"
    """BOINC was suspended in it, for nobody had been heard of."""
    BROKEN = "broken"
    """BOINC cannot be asked."""
    WORKING = "working"
    STARVED = "starved"
    """It has nothing to do: its projects gave it no work."""
    DRAINED = "drained"
    STOPPED = "stopped"
    """A person ended it; its machine shuts down."""


SILENT_AFTER = timedelta(seconds=4 * HEARTBEAT_S)
ABSENT_AFTER = timedelta(minutes=30)
"""A machine that finds its network late and installs BOINC from far away has enrolled by then."""
DWELL = {
    Health.SILENT: timedelta(minutes=6),
    Health.HELD: timedelta(minutes=5),
    Health.BROKEN: timedelta(minutes=15),
    Health.STARVED: timedelta(minutes=15),
}
"""So long each must hold before it is said to others; what is good, and what took its time already, at once."""
UNSAID = frozenset({Health.AWAITED, Health.DRAINED})
"""Others know these without being told."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What is known of an agent, and what it last told."""

    enrolled_at: datetime | None
    beat_at: datetime | None
    drained: bool
    held: bool
    boinc_error: bool
    tasks: int
    expected_since: datetime | None = None
    """Since when there should be an agent; None: the machine does not run, or has none."""


def health_of(vitals: Vitals, now: datetime) -> Health:
    """The first of these that is true, the worst first."""
    heard_at = vitals.beat_at or vitals.enrolled_at
    if heard_at is None:
        since = vitals.expected_since
        return Health.ABSENT if since is not None and now - since > ABSENT_AFTER else Health.AWAITED
    told: list[tuple[bool, Health]] = [
        (vitals.drained, Health.DRAINED),
        (now - heard_at > SILENT_AFTER, Health.SILENT),
        (vitals.beat_at is None, Health.ENROLLED),
        (vitals.held, Health.HELD),
        (vitals.boinc_error, Health.BROKEN),
        # A task that is throttled or waits for memory does not run at every moment.
        (vitals.tasks > 0, Health.WORKING),
    ]
    return next((health for is_so, health in told if is_so), Health.STARVED)


FREE_PERCENT = 100.0


def allowed_percent(by_hand: float | None, until: datetime | None, cap: float | None, now: datetime) -> float:
    """What a guest may use of its processors: the lesser of a person's word, while it lasts, and of workload's cap."""
    lasts = by_hand is not None and until is not None and now < until
    bounds = [by_hand if lasts else None, cap]
    return min((bound for bound in bounds if bound is not None), default=FREE_PERCENT)


def drain_deadline_s(grace_s: float | None, since: datetime, now: datetime) -> float:
    """What is left of a draining machine's grace for its guest."""
    left_s = (grace_s or _USUAL_GRACE_S) - (now - since).total_seconds() - _RESERVE_S
    return round(max(0.0, left_s), 1)


def _canonical(url: str) -> str:
    try:
        return canonical_url(url)
    except ValueError:
        return ""
