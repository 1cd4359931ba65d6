"""The ladder of giving back: up with dwell while something presses, down one rung at a time afterwards."""

from dataclasses import dataclass
from datetime import datetime

from libs.harvest.types import Facts, Policy, Rung, State, Verdict
from libs.harvest.verdict import has_dwelt
from libs.harvest.windows import is_open


@dataclass(frozen=True, slots=True)
class Push:
    """What presses on the ladder now."""

    draining: bool
    paused: bool
    closed: bool
    """Outside every window."""
    unknown: bool
    busy_now: bool
    """A busy signal in this very sample, before any dwell."""
    busy: bool
    exposed: bool
    """Ours do not give way by themselves: nothing but their limits holds them back."""
    may_descend: bool
    """Only a fresh, believable sample leads down."""
    verdict: Verdict

    @property
    def presses(self) -> bool:
        return self.busy or self.closed or self.exposed


def read_push(policy: Policy, state: State, facts: Facts, at: datetime, *, fresh: bool) -> Push:
    """The pressure of a judged state and the facts at `at`."""
    return Push(
        draining=facts.draining,
        paused=facts.paused is not None,
        closed=not is_open(policy, at),
        unknown=state.verdict is Verdict.UNKNOWN,
        busy_now=state.busy_since is not None,
        busy=state.verdict is Verdict.BUSY,
        exposed=state.exposed is not None,
        may_descend=fresh,
        verdict=state.verdict,
    )


def can_suspend(policy: Policy, datastore_short: bool) -> bool:
    """Whether the suspend rung exists: the operator may not want it, the datastore not hold it."""
    return policy.ladder.suspend and policy.release == "suspend" and not datastore_short


def climb_or_descend(policy: Policy, state: State, push: Push, at: datetime) -> State:
    """The state on its next rung."""
    if push.presses and state.pressed_since is None:
        state = state._replace(pressed_since=at)
    elif not push.presses and not push.unknown and state.pressed_since is not None:
        state = state._replace(pressed_since=None)
    rung = max(_climb(policy, state, at), _least(policy, state, push, at))
    if rung is state.rung and push.may_descend and not push.presses:
        rung = max(_descend(policy, state, push), _least(policy, state, push, at))
    since = state.rung_since if rung is state.rung and state.rung_since else at
    if rung is state.rung and since == state.rung_since:
        return state
    return state._replace(rung=rung, rung_since=since)


def _least(policy: Policy, state: State, push: Push, at: datetime) -> Rung:
    """The rung below which nothing may be, at once and whatever the dwell."""
    if push.draining:
        grace_over = state.rung >= Rung.DRAIN and has_dwelt(state.rung_since, policy.ladder.drain_grace_s, at)
        return Rung.DESTROY if state.rung is Rung.DESTROY or grace_over else Rung.DRAIN
    if push.paused or push.unknown:
        return Rung.NO_NEW
    return Rung.FLOOR if push.presses or push.busy_now else Rung.LEND


def _climb(policy: Policy, state: State, at: datetime) -> Rung:
    """The next rung if something has pressed on this one for its dwell, else this one."""
    if state.rung_since is None:
        return state.rung
    harder, dwell_s = _next_harder(policy, state)
    presses = [since for since in (state.pressed_since, _outgrown_since(policy, state)) if since is not None]
    is_over = any(has_dwelt(max(state.rung_since, since), dwell_s, at) for since in presses)
    return harder if is_over else state.rung


def _outgrown_since(policy: Policy, state: State) -> datetime | None:
    """Since when machines are suspended where they may not be: their files keep a short datastore short.

    None where an idle owner lets them resume, and where nothing is known.
    """
    if state.rung is not Rung.SUSPEND or can_suspend(policy, state.datastore_short):
        return None
    return None if state.verdict in (Verdict.IDLE, Verdict.UNKNOWN) else state.short_since or state.rung_since


def _next_harder(policy: Policy, state: State) -> tuple[Rung, float]:
    ladder = policy.ladder
    match state.rung:
        case Rung.LEND:
            return Rung.FLOOR, 0.0
        case Rung.FLOOR:
            return Rung.NO_NEW, ladder.stop_new_after_s
        case Rung.NO_NEW:
            # Without the suspend rung draining begins when suspending would have: the owner waits no longer.
            harder = Rung.SUSPEND if can_suspend(policy, state.datastore_short) else Rung.DRAIN
            return harder, ladder.suspend_after_s
        case Rung.SUSPEND:
            return Rung.DRAIN, ladder.drain_after_s
        case _:
            return Rung.DESTROY, ladder.drain_grace_s


def _descend(policy: Policy, state: State, push: Push) -> Rung:
    """One rung down where the verdict allows: lending again needs no busy owner, resuming an idle one."""
    calm = push.verdict in (Verdict.IDLE, Verdict.NORMAL)
    match state.rung:
        case Rung.FLOOR:
            return Rung.LEND
        case Rung.NO_NEW if calm:
            return Rung.FLOOR
        case Rung.SUSPEND | Rung.DRAIN | Rung.DESTROY if push.verdict is Verdict.IDLE:
            lower = Rung(state.rung - 1)
            skip = lower is Rung.SUSPEND and not can_suspend(policy, state.datastore_short)
            return Rung.NO_NEW if skip else lower
        case _:
            return state.rung
