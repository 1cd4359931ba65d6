"""How often machines may come: nothing grows without bound, and nobody who is known pays for a neighbour."""

from hashlib import sha256

import pytest

from services.contribution.api import limits as module
from services.contribution.api.limits import (
    LEARN_EVERY_S,
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


def come(limits: Limits, token: str, address: str = HERE, *, known: bool) -> int:
    """Ask, and where that is granted be found known or not; how long to wait."""
    wait_s = limits.ask(token, address).wait_s
    if not wait_s:
        limits.note(token, address, known=known)
    return wait_s


def test_a_token_may_come_so_often_and_then_waits_its_time() -> None:
    time = Time()
    limits = Limits(time)
    assert all(come(limits, "mine", known=True) == 0 for _ in range(int(TOKEN_BURST)))
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
    assert all(come(limits, f"guess {number}", known=False) == 0 for number in range(int(STRANGER_BURST)))

    assert limits.ask("guess", HERE).wait_s == STRANGER_EVERY_S
    assert limits.ask("guess", THERE).wait_s == 0
    assert limits.ask("guess 7", HERE).is_known is False
    assert (limits.ask("mine", HERE).wait_s, limits.ask("mine", HERE).is_known) == (0, True)
    limits.note("mine", HERE, known=False)  # its machine is gone
    assert limits.ask("mine", HERE).wait_s == STRANGER_EVERY_S
    time.now += 2 * STRANGER_EVERY_S
    assert limits.ask("guess", HERE).wait_s == 0


def test_strangers_who_come_all_at_once_get_in_no_more_often_than_one_after_the_other() -> None:
    limits = Limits(Time())
    # Nobody has been answered yet when the last one asks.
    let_in = sum(limits.ask(f"guess {number}", HERE).wait_s == 0 for number in range(1000))
    assert let_in == STRANGER_BURST


def test_trouble_of_ours_is_nobodys_guess() -> None:
    limits = Limits(Time())
    for number in range(3 * int(STRANGER_BURST)):
        assert limits.ask(f"somebody {number}", HERE).wait_s == 0
        limits.note(f"somebody {number}", HERE, known=None)


def test_a_network_of_version_six_counts_as_one_address() -> None:
    limits = Limits(Time())
    for number in range(int(STRANGER_BURST)):
        assert come(limits, f"guess {number}", f"2001:db8:1:2::{number:x}", known=False) == 0
    assert limits.ask("x", "2001:db8:1:2:ffff::1").wait_s > 0
    assert limits.ask("x", "2001:db8:1:3::1").wait_s == 0


def test_what_strangers_send_is_remembered_within_bounds_and_makes_nobody_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, most in (("MOST_KNOWN", 50), ("MOST_REFUSED", 40), ("MOST_ADDRESSES", 30)):
        monkeypatch.setattr(module, name, most)
    limits = Limits(Time())
    for number in range(50):
        come(limits, f"machine {number}", known=True)
    for number in range(500):
        come(limits, f"guess {number}", f"{number}", known=False)
        limits.ask(f"another {number}", f"{number}")
    assert limits.remembered == (50, 40, 30)
    assert all(limits.ask(f"machine {number}", HERE).is_known for number in range(50))
    for number in range(100):
        come(limits, f"late {number}", f"{number}", known=True)
    assert limits.remembered == (50, 40, 30)


def test_who_was_known_before_a_restart_is_learnt_where_strangers_have_used_up_the_address() -> None:
    time = Time()
    limits = Limits(time)
    for number in range(int(STRANGER_BURST)):
        come(limits, f"guess {number}", known=False)
    assert (limits.ask("mine", HERE).wait_s, limits.ask("mine", HERE).is_known) == (1, None)

    assert limits.may_learn()
    assert not limits.may_learn()
    limits.learn([sha256(b"mine").hexdigest(), sha256(b"guess 7").hexdigest()])
    assert limits.ask("mine", HERE).wait_s == limits.ask("guess 7", HERE).wait_s == 0
    assert limits.ask("guess 8", HERE).wait_s > 0
    time.now += LEARN_EVERY_S
    assert limits.may_learn()
