"""Sealing: what was sealed opens for its context alone, nothing else does, and nothing is said about it."""

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.ids import new_id
from libs.common.secrets import (
    KEY_BYTES,
    Unsealable,
    Vault,
    authenticator_context,
    fresh_key,
    parse_keys,
)

OLD, NEW = b"o" * KEY_BYTES, b"n" * KEY_BYTES
VAULT = Vault({"old": OLD, "new": NEW})
CONTEXT = b"https://vcenter.example:443|AA:BB"
SECRET = "correct-horse-battery"


@given(st.text(), st.binary())
def test_what_was_sealed_opens_again(secret: str, context: bytes) -> None:
    assert VAULT.open(VAULT.seal(secret, context), context) == secret


@given(st.text(), st.binary(), st.binary())
def test_another_context_does_not_open_it(secret: str, context: bytes, other: bytes) -> None:
    sealed = VAULT.seal(secret, context)
    if context != other:
        with pytest.raises(Unsealable):
            VAULT.open(sealed, other)


@given(st.text(max_size=40), st.data())
def test_any_flipped_bit_is_noticed(secret: str, data: st.DataObject) -> None:
    key_id, _, text = VAULT.seal(secret, CONTEXT).partition(".")
    raw = bytearray(base64.urlsafe_b64decode(text))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Unsealable):
        VAULT.open(f"{key_id}.{base64.urlsafe_b64encode(raw).decode()}", CONTEXT)


@given(st.text(max_size=40), st.data())
def test_no_change_of_the_sealed_form_opens_as_something_else(secret: str, data: st.DataObject) -> None:
    sealed = VAULT.seal(secret, CONTEXT)
    place = data.draw(st.integers(0, len(sealed) - 1))
    letters = data.draw(st.text(max_size=2).filter(lambda letters: letters != sealed[place]))
    # Base64's last letter has bits that mean nothing: those may differ.
    with suppress(Unsealable):
        assert VAULT.open(sealed[:place] + letters + sealed[place + 1 :], CONTEXT) == secret


@given(st.text())
def test_nonsense_is_unsealable_and_nothing_else(text: str) -> None:
    with pytest.raises(Unsealable):
        VAULT.open(text, CONTEXT)
    with pytest.raises(Unsealable):
        VAULT.open(f"new.{text}", CONTEXT)


def test_the_same_secret_is_sealed_differently_each_time() -> None:
    sealed = {VAULT.seal(SECRET, CONTEXT) for _ in range(50)}
    assert len(sealed) == 50
    assert len({base64.urlsafe_b64decode(text.partition(".")[2])[:12] for text in sealed}) == 50


def test_keys_rotate() -> None:
    before = Vault({"old": OLD}).seal(SECRET, CONTEXT)
    assert (before.partition(".")[0], VAULT.open(before, CONTEXT)) == ("old", SECRET)

    after = VAULT.reseal(before, CONTEXT)
    assert after.partition(".")[0] == "new"
    assert Vault({"new": NEW}).open(after, CONTEXT) == SECRET
    with pytest.raises(Unsealable, match="sealed with key 'old', which this process does not have"):
        Vault({"new": NEW}).open(before, CONTEXT)
    with pytest.raises(Unsealable):
        VAULT.reseal(before, b"another address")


def test_a_key_of_the_same_name_is_still_another_key() -> None:
    with pytest.raises(Unsealable, match="enter the secret again"):
        Vault({"new": OLD}).open(VAULT.seal(SECRET, CONTEXT), CONTEXT)


def test_the_key_id_cannot_be_swapped() -> None:
    sealed = Vault({"a": OLD}).seal(SECRET, CONTEXT)
    with pytest.raises(Unsealable):
        Vault({"a": OLD, "b": NEW}).open("b" + sealed[1:], CONTEXT)


def test_no_error_and_no_text_of_a_vault_holds_a_secret() -> None:
    sealed = VAULT.seal(SECRET, CONTEXT)
    texts = [sealed, repr(VAULT), str(VAULT)]
    for wrong, context in ((sealed, b"x"), ("gone" + sealed, CONTEXT), (sealed[:-6], CONTEXT), (sealed, b"")):
        with pytest.raises(Unsealable) as raised:
            VAULT.open(wrong, context)
        texts += [str(raised.value), repr(raised.value)]
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__ or raised.value.__context__ is None
    for text in texts:
        assert SECRET not in text
        assert not {key for key in (OLD, NEW) if key.decode() in text}


@pytest.mark.parametrize(
    "keys", [{}, {"a": b"short"}, {"": OLD}, {"a.b": OLD}, {"a": OLD + b"x"}], ids=["none", *"abcd"]
)
def test_a_vault_takes_only_whole_keys_with_plain_names(keys: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="key") as raised:
        Vault(keys)
    assert OLD.decode() not in str(raised.value)


def test_keys_are_read_newest_last() -> None:
    first, second = fresh_key(), fresh_key()
    keys = parse_keys(f" a:{first}, b:{second} ,")
    assert list(keys) == ["a", "b"]
    assert {len(key) for key in keys.values()} == {KEY_BYTES}
    assert Vault(keys).current_key_id == "b"
    standard = base64.b64encode(b"\xfb\xff" * 16).decode()
    assert parse_keys(f"a:{standard}") == {"a": b"\xfb\xff" * 16}
    assert parse_keys("") == {}


@pytest.mark.parametrize("text", ["a:hunter2hunter!", "a:€", "a:QUJ"])
def test_a_key_that_is_no_base64_is_refused_by_the_name_of_the_setting(text: str) -> None:
    with pytest.raises(ValueError, match="TIDES_SEALING_KEYS") as raised:
        parse_keys(text)
    assert text[2:] not in str(raised.value)


def test_contributions_have_contexts_of_their_own() -> None:
    one, other = authenticator_context(new_id()), authenticator_context(new_id())
    assert one != other
    with pytest.raises(Unsealable):
        VAULT.open(VAULT.seal(SECRET, one), other)
