"""The lenient parser: what real servers print, and what nobody should."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.boinc.lenient import DEEPEST, decode, find_root, parse

PHP = """<br />
<b>Deprecated</b>:  Something in <b>/html/x.php</b> on line <b>3</b><br />
<?xml version="1.0" encoding="ISO-8859-1" ?>
<am_get_info_reply>
<br><b>Warning</b>: more of it
    <success/>
    <id>1</id><name>R&D <3 Co &amp; Sons</name>
    <weak_auth>1_a2</weak_auth>
</am_get_info_reply>"""


def test_what_php_prints_in_between_is_no_element() -> None:
    root = find_root(PHP, "am_get_info_reply")

    assert root is not None
    assert (root.get("id"), root.get("weak_auth")) == ("1", "1_a2")
    assert root.get("name") == "R&D <3 Co & Sons"
    assert root.flag("success")


def test_terms_and_opaque_are_taken_as_they_are() -> None:
    text = (
        "<c><terms_of_use>\n<b>x</b> & <id>7</id> co\n</terms_of_use><id>1</id><opaque><m>4</m></opaque></c>"
    )
    root = find_root(text, "c")

    assert root is not None
    assert root.get("terms_of_use") == "<b>x</b> & <id>7</id> co"
    assert (root.get("id"), root.get("opaque")) == ("1", "<m>4</m>")


def test_entities_of_a_document_are_never_expanded() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY f SYSTEM "file:///etc/passwd">]><x><y>&a;&f;&#65;&#x110000;</y></x>'
    root = find_root(bomb, "x")

    assert root is not None
    assert root.get("y") == "&a;&f;A&#x110000;"


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        (b"\xff\xfe<x>", None, "\ufffd\ufffd<x>"),
        ("<é>".encode("latin-1"), "iso-8859-1", "<é>"),
        ("<é>".encode(), "no-such-charset", "<é>"),
        (b"\xef\xbb\xbf<x/>", None, "<x/>"),
        ("<é>".encode("latin-1"), "utf-8", "<\ufffd>"),
    ],
)
def test_a_body_is_read_by_the_charset_of_http_or_as_far_as_it_goes(
    body: bytes, charset: str | None, text: str
) -> None:
    assert decode(body, charset) == text


def test_ends_that_are_missing_or_of_nothing_do_no_harm() -> None:
    root = find_root("<aa><bb>1<c>2</x></c></bb><d>3", "aa")

    assert root is not None
    assert (root.get("bb"), root.get("d")) == ("1", "3")


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("<>/!?[]-abcCDATA &#;xopaque\n\"'=0")) | st.text())
def test_no_text_raises(text: str) -> None:
    assert parse(text).tag == ""


@pytest.mark.parametrize(
    "piece",
    ["<aa>", "<opaque>", "<aa/>t", "</aa>", "<!--", "<![CDATA[", "<aa b='", "&#", "<terms_of_use>x", "<"],
)
def test_a_hostile_text_takes_no_more_than_its_length(piece: str) -> None:
    text = piece * (300_000 // len(piece))
    began = time.process_time()
    root = parse(text)

    assert time.process_time() - began < 3
    depth, node = 0, root
    while node.children:
        depth, node = depth + 1, node.children[-1]
    assert depth <= DEEPEST
