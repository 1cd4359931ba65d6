"""How many things workload does at once, and for how long it waits."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Bounds for acting on one cloud; every deadline is shorter than what is left of a lease."""

    call_s: float = 20.0
    act_every_s: float = 1.0
    look_again_s: float = 2.0
    """How often the inventory is read while something is under way."""
    refused_rest_s: float = 15.0
    """How long a cluster rests whose limits the cloud refused, so that others are not held up; an act, at first."""
    refused_most_s: float = 300.0
    """How long an act that is forbidden again and again rests at most."""
    look_every_s: float = 10.0
    """How often the inventory is read where every machine is as wanted."""
    silence_every_s: float = 5.0
    keep_every_s: float = 3600.0
    parallel_clones: int = 4
    parallel_acts: int = 8
    looks_in_a_row: int = 6
    """Fresh looks after acts that went well, before the next beat takes over."""
