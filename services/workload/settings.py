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
    """How long a cluster rests whose limits the cloud refused, and an act at first: others are not held up."""
    refused_most_s: float = 300.0
    """How long an act that is refused again and again rests at most."""
    giving_back_most_s: float = 60.0
    """How long giving back rests at most where the refusal may pass: the owner waits for it."""
    look_every_s: float = 10.0
    """How often the inventory is read where every machine is as wanted."""
    silence_every_s: float = 5.0
    keep_every_s: float = 3600.0
    parallel_clones: int = 4
    parallel_acts: int = 8
    looks_in_a_row: int = 6
    """Fresh looks after acts that went well, before the next beat takes over."""
