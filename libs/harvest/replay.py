"""Running the engine over a recorded story: the same observations and facts give the same decisions."""

from collections.abc import Iterable

from libs.harvest.decide import decide
from libs.harvest.types import Decision, Facts, Observation, Policy, State


def replay(policy: Policy, state: State, story: Iterable[tuple[Observation, Facts]]) -> tuple[Decision, ...]:
    """The decision after every observation, in the order given, beginning with `state`."""
    decisions = []
    for observation, facts in story:
        state, decision = decide(policy, state, observation, facts)
        decisions.append(decision)
    return tuple(decisions)
