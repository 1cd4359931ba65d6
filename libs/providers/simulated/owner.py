"""The owner's load: a pure function of seed, host and time, so that any moment can be asked for in any order.

Rhythm of the day and week, value noise on three time scales (neighbouring seconds are alike) and rare spikes,
all from hashes: no history is kept and every run repeats exactly.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from libs.providers.simulated.settings import OwnerProfile

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_DAY_S = 86_400.0
_SPIKE_SLOT_S = 1_200.0


@dataclass(frozen=True, slots=True)
class Profile:
    """Fractions of a host's capacity."""

    base: float
    spread: float
    """How far hosts of one cluster differ."""
    day: float
    """What a working day adds at noon."""
    weekend: float
    """Factor on `day` at weekends."""
    jitter: float
    """Amplitude of noise within a minute."""
    drift: float
    """Amplitude of noise within an hour."""
    spike_chance: float
    """Per 20 minutes."""
    spike: float
    low: float
    high: float
    memory: float


PROFILES: dict[OwnerProfile, Profile] = {
    OwnerProfile.OFFICE: Profile(0.15, 0.04, 0.36, 0.25, 0.03, 0.05, 0.015, 0.30, 0.02, 0.98, 0.45),
    OwnerProfile.NOISY: Profile(0.18, 0.06, 0.26, 0.40, 0.09, 0.10, 0.060, 0.40, 0.02, 1.00, 0.50),
    OwnerProfile.FULL: Profile(0.81, 0.03, 0.02, 0.80, 0.02, 0.03, 0.000, 0.00, 0.75, 0.88, 0.70),
    OwnerProfile.IDLE: Profile(0.04, 0.01, 0.03, 0.50, 0.01, 0.02, 0.000, 0.00, 0.01, 0.20, 0.20),
}


@lru_cache(maxsize=65_536)
def key_of(seed: int, *labels: object) -> int:
    """A 64-bit key for one named source of chance."""
    text = "\x00".join(map(str, (seed, *labels)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def chance(key: int, index: int) -> float:
    """A uniform number in [0, 1) for this key and index (splitmix64)."""
    value = (key + index * _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return (value ^ (value >> 31)) / 2.0**64


@lru_cache(maxsize=65_536)
def _knot(key: int, index: int) -> float:
    return 2.0 * chance(key, index) - 1.0


def noise(key: int, at_s: float, period_s: float) -> float:
    """Smooth noise in [-1, 1] that forgets within about `period_s`."""
    place = at_s / period_s
    index = math.floor(place)
    share = place - index
    share = share * share * (3.0 - 2.0 * share)
    return _knot(key, index) * (1.0 - share) + _knot(key, index + 1) * share


def owner_cpu(profile: Profile, seed: int, host: str, at_s: float) -> float:
    """The owner's CPU demand on a host as a fraction of its capacity, at this second of the epoch (UTC)."""
    key = key_of(seed, host)
    level = profile.base + profile.spread * _knot(key, 1)
    level += profile.day * _rhythm(at_s + 3_600.0 * _knot(key, 2), profile.weekend)
    level += profile.jitter * noise(key_of(seed, host, "jitter"), at_s, 25.0)
    level += profile.drift * noise(key_of(seed, host, "drift"), at_s, 420.0)
    level += 0.5 * profile.drift * noise(key_of(seed, host, "trend"), at_s, 5_400.0)
    if profile.spike_chance:
        level += _spike(profile, key_of(seed, host, "spike"), at_s)
    return min(max(level, profile.low), profile.high)


def owner_memory(profile: Profile, seed: int, host: str, at_s: float) -> float:
    """The owner's memory on a host as a fraction of its capacity: it drifts over hours."""
    key = key_of(seed, host, "memory")
    level = profile.memory + 0.05 * _knot(key, 1) + 0.05 * noise(key, at_s, 14_400.0)
    return min(max(level, 0.05), 0.95)


def _rhythm(at_s: float, weekend: float) -> float:
    """0 at night, 1 at 13:00, a raised cosine between 7 and 19; weaker on Saturday and Sunday."""
    days, second = divmod(at_s, _DAY_S)
    distance = abs(second / 3_600.0 - 13.0)
    if distance >= 6.0:
        return 0.0
    swell = 0.5 + 0.5 * math.cos(math.pi * distance / 6.0)
    is_weekend = (int(days) + 3) % 7 >= 5
    return swell * weekend if is_weekend else swell


def _spike(profile: Profile, key: int, at_s: float) -> float:
    """At most one spike per slot: a jump within a second that lasts one to six minutes."""
    slot = math.floor(at_s / _SPIKE_SLOT_S)
    if chance(key, 4 * slot) >= profile.spike_chance:
        return 0.0
    length_s = 60.0 + 300.0 * chance(key, 4 * slot + 1)
    begin_s = slot * _SPIKE_SLOT_S + (_SPIKE_SLOT_S - length_s) * chance(key, 4 * slot + 2)
    if not begin_s <= at_s < begin_s + length_s:
        return 0.0
    return profile.spike * (0.5 + chance(key, 4 * slot + 3))
