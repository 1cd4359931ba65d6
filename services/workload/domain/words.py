"""What people and modes do, in words: they stand in reasons, events and logs, for who reads them at 3 a.m."""


def by_hand(what: str, name: str | None, reason: str | None) -> str:
    """What a person did, who it was and why: `drained by hand by Ada: moving out`."""
    who = f" by {name}" if name else ""
    why = f": {reason}" if reason else ""
    return f"{what} by hand{who}{why}"


def released(*, force: bool) -> str:
    """Why everything leaves a resource that is being given up."""
    return "the resource is being released" + (" by force, without grace" if force else "")


ONLY_OBSERVES = "the resource only observes again"
"""Why everything leaves a resource that was lent before."""


PROBE_OVER = "its probe is over and the resource is not lent"
"""Why a probe's machine leaves."""


def revoked(template: str, version: int) -> str:
    """Why machines of a template version go."""
    return f"template {template} v{version} was revoked"


def replace_cause(sentence: str, cause: str) -> str:
    """The sentence of a decision with another cause, its consequence kept."""
    _, mark, consequence = sentence.partition("; ")
    return f"{cause}{mark}{consequence}"


def name_quota(sentence: str, quota: str) -> str:
    """The sentence of a decision that the engine's quota bound, with the quota that stands behind it in its place."""
    _, mark, rest = sentence.partition(" is reached")
    return f"{quota}{rest}" if mark else f"{quota}; {sentence}"


def bound_by_hand(most_machines: int | None, name: str | None, reason: str | None) -> str:
    """How many machines a person allows, and why."""
    what = "the bound is taken away" if most_machines is None else f"scaled to at most {most_machines}"
    return by_hand(what, name, reason)
