"""How often machines may come: nothing grows without bound, and nobody who is known pays for a neighbour."""

from services.contribution.api.limits import (
    MOST_ADDRESSES,
    MOST_TOKENS,
    STRANGER_BURST,
    STRANGER_EVERY_S,
    TOKEN_BURST,
    TOKEN_EVERY_S,
    Limits,
)

HERE, THERE = "192.0.2.1", "192.0.2.2"


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_token_may_come_so_often_and_then_waits_its_time() -> None:
    time = Time()
    limits = Limits(time)
    assert all(limits.ask("mine", HERE).wait_s == 0 for _ in range(int(TOKEN_BURST)))
    assert limits.ask("mine", HERE).wait_s == TOKEN_EVERY_S
    assert limits.ask("another", HERE).wait_s == 0
    time.now += TOKEN_EVERY_S - 1
    assert limits.ask("mine", HERE).wait_s == 1
    time.now += 1
    assert limits.ask("mine", HERE).wait_s == 0
    time.now += 1e9
    assert sum(limits.ask("mine", HERE).wait_s == 0 for _ in range(100)) == TOKEN_BURST


def test_an_address_that_guesses_is_held_back_but_who_is_known_there_is_not() -> None:
    time = Time()
    limits = Limits(time)
    assert limits.ask("mine", HERE).is_known is None
    limits.note("mine", HERE, known=True)
    for number in range(int(STRANGER_BURST)):
        assert limits.ask(f"guess {number}", HERE).wait_s == 0
        limits.note(f"guess {number}", HERE, known=False)

    assert limits.ask("guess", HERE).wait_s == STRANGER_EVERY_S
    assert limits.ask("guess", THERE).wait_s == 0
    assert limits.ask("mine", HERE).wait_s == 0
    limits.note("mine", HERE, known=False)  # its machine is gone
    assert limits.ask("mine", HERE).wait_s == STRANGER_EVERY_S
    time.now += 2 * STRANGER_EVERY_S
    assert limits.ask("guess", HERE).wait_s == 0


def test_a_network_of_version_six_counts_as_one_address() -> None:
    limits = Limits(Time())
    for number in range(int(STRANGER_BURST)):
        limits.note(f"guess {number}", f"2001:db8:1:2::{number:x}", known=False)
    assert limits.ask("x", "2001:db8:1:2:ffff::1").wait_s > 0
    assert limits.ask("x", "2001:db8:1:3::1").wait_s == 0


def test_what_is_remembered_is_bounded_whoever_comes() -> None:
    limits = Limits(Time())
    for number in range(MOST_TOKENS + 100):
        limits.ask(str(number), f"{number}")
    assert limits.remembered == (MOST_TOKENS, MOST_ADDRESSES)
