"""Credit, operations and core-hours: BOINC's arithmetic.

200 credits are one day of one GFLOPS (Whetstone). Projects grant as they see fit: between projects only core-hours
compare. Claimed (what a client counted) and granted (what a project gave) are two figures and never added.
"""

import math

CREDIT_PER_GFLOPS_DAY = 200.0
_SECONDS = 86_400.0
_HALF_LIFE_S = 604_800.0


def credit_of_flops(flops: float) -> float:
    """The credit that this many floating-point operations are worth."""
    return flops * CREDIT_PER_GFLOPS_DAY / (_SECONDS * 1e9)


def flops_of_credit(credit: float) -> float:
    """The floating-point operations that a credit stands for."""
    return credit * _SECONDS * 1e9 / CREDIT_PER_GFLOPS_DAY


def claimed_credit(cpu_s: float, fpops: float) -> float:
    """What a client counts for its CPU time: `fpops` is its benchmark, operations a second and core."""
    return credit_of_flops(cpu_s * fpops)


def core_hours(cpu_s: float) -> float:
    """CPU seconds as core-hours."""
    return cpu_s / 3600.0


def gflops_of_average(average_credit: float) -> float:
    """The speed that a recent average credit (RAC) stands for."""
    return average_credit / CREDIT_PER_GFLOPS_DAY


def average_now(average_credit: float, average_at: float, now: float) -> float:
    """A recent average credit brought from the time that it is of to now; it halves in a week."""
    return average_credit * math.exp(-max(0.0, now - average_at) * math.log(2) / _HALF_LIFE_S)


def possible_s(cpu_s: float, vcpus: int, elapsed_s: float) -> float:
    """CPU seconds of a period as far as the machine can have spent them: a client may say anything."""
    if not math.isfinite(cpu_s):
        return 0.0
    return min(max(0.0, cpu_s), max(0.0, vcpus * elapsed_s))
