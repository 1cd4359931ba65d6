"""The simulated owner: plausible, bounded and the same every time."""

from datetime import UTC, datetime
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.providers.simulated import OwnerProfile
from libs.providers.simulated.owner import PROFILES, noise, owner_cpu, owner_memory

MONDAY_S = datetime(2026, 3, 2, tzinfo=UTC).timestamp()
DAY_S = 86_400.0
HOSTS = tuple(f"host-{number}" for number in range(1001, 1007))

moments = st.floats(min_value=0.0, max_value=4e9)
profiles = st.sampled_from(OwnerProfile)


def week(profile: OwnerProfile, host: str, days: tuple[float, float] = (0.0, 7.0)) -> list[float]:
    """Load every five minutes between two days of a week, as fractions of the host."""
    begin, end = (int(day * DAY_S) for day in days)
    return [
        owner_cpu(PROFILES[profile], 7, host, MONDAY_S + second + 0.5) for second in range(begin, end, 300)
    ]


@given(profiles, st.integers(0, 2**32), moments)
def test_load_is_a_fraction_and_the_same_every_time(profile: OwnerProfile, seed: int, at_s: float) -> None:
    load = owner_cpu(PROFILES[profile], seed, "host-1", at_s)
    assert PROFILES[profile].low <= load <= PROFILES[profile].high
    assert load == owner_cpu(PROFILES[profile], seed, "host-1", at_s)
    assert 0.0 < owner_memory(PROFILES[profile], seed, "host-1", at_s) < 1.0


@pytest.mark.parametrize("profile", [OwnerProfile.OFFICE, OwnerProfile.NOISY])
def test_an_enterprise_uses_a_fifth_to_a_third(profile: OwnerProfile) -> None:
    assert 0.20 <= fmean(fmean(week(profile, host)) for host in HOSTS) <= 0.30


def test_a_full_cluster_stays_between_75_and_88_percent() -> None:
    loads = [load for host in HOSTS for load in week(OwnerProfile.FULL, host)]
    assert min(loads) >= 0.75
    assert max(loads) <= 0.88


def test_days_are_busier_than_nights_and_weekends() -> None:
    for host in HOSTS:
        noon = fmean(week(OwnerProfile.OFFICE, host, (0.45, 0.62)))
        night = fmean(week(OwnerProfile.OFFICE, host, (1.05, 1.20)))
        saturday = fmean(week(OwnerProfile.OFFICE, host, (5.45, 5.62)))
        assert noon > night + 0.15
        assert noon > saturday + 0.10


def test_spikes_are_rare_and_exist() -> None:
    jumps = [load for host in HOSTS for load in week(OwnerProfile.NOISY, host, (0.0, 0.25)) if load > 0.55]
    assert 1 <= len(jumps) <= 0.1 * len(HOSTS) * 72


def test_seeds_and_hosts_differ() -> None:
    assert week(OwnerProfile.OFFICE, "host-1") != week(OwnerProfile.OFFICE, "host-2")
    at_s = MONDAY_S + 40_000
    loads = {owner_cpu(PROFILES[OwnerProfile.OFFICE], seed, "host-1", at_s) for seed in range(5)}
    assert len(loads) == 5


@given(st.integers(0, 2**63), moments)
def test_noise_is_smooth(key: int, at_s: float) -> None:
    assert abs(noise(key, at_s, 420.0)) <= 1.0
    assert abs(noise(key, at_s, 420.0) - noise(key, at_s + 1.0, 420.0)) < 0.02


def test_every_process_and_release_sees_the_same_load() -> None:
    loads = [
        owner_cpu(PROFILES[OwnerProfile.NOISY], 7, host, MONDAY_S + second)
        for host, second in (("host-1001", 0.0), ("host-1001", 45_000.0), ("host-2004", 500_000.5))
    ]
    assert loads == pytest.approx([0.15273638642807433, 0.48170173341587164, 0.08832876299304329], abs=1e-12)
