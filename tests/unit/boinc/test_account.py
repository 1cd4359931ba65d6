"""Account files and keys, as BOINC's client reads them."""

import xml.etree.ElementTree as ET

import pytest

from libs.boinc.account import (
    Attachment,
    KeyKind,
    account_file_name,
    canonical_url,
    kind_of,
    render_account_file,
)

WEAK = "1_a2d3122f4a70a8a03d05fef689443657"
STRONG = "04ba23378c00cfa1f309fe3ba59057d5"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://127.0.0.1:8090/tproj/", "account_127.0.0.1_8090_tproj.xml"),
        ("https://www.sidock.si/sidock/", "account_www.sidock.si_sidock.xml"),
        ("https://example.org/a~b/../../etc/passwd", "account_example.org_a_b_.._.._etc_passwd.xml"),
        ("https://example.org/", "account_example.org.xml"),
    ],
)
def test_the_account_file_has_the_name_that_the_client_looks_for(url: str, name: str) -> None:
    assert account_file_name(url) == name


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (WEAK, KeyKind.WEAK),
        (STRONG, KeyKind.STRONG),
        (STRONG.upper(), KeyKind.STRONG),
        ("0_" + STRONG, KeyKind.UNKNOWN),
        (WEAK + "\n", KeyKind.UNKNOWN),
        ("", KeyKind.UNKNOWN),
    ],
)
def test_a_weak_key_is_told_from_a_strong_one(key: str, kind: KeyKind) -> None:
    assert kind_of(key) is kind


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        (" HTTPS://Example.ORG/Proj ", "https://example.org/Proj/"),
        ("http://example.org:8080//a//b/", "http://example.org:8080/a/b/"),
        ("http://[::1]:80", "http://[::1]:80/"),
    ],
)
def test_two_spellings_of_an_address_are_one_project(given: str, canonical: str) -> None:
    assert canonical_url(given) == canonical
    assert canonical_url(canonical) == canonical


@pytest.mark.parametrize(
    "url",
    [
        "", "example.org", "ftp://example.org/", "file:///etc/passwd", "javascript:alert(1)", "https://",
        "https://user:secret@example.org/", "https://exa mple.org/", "https://example.org/?q=1",
        "https://example.org/<script>", 'https://example.org/"', "https://example.org/\n", "https://exämple.org/",
        "https://example.org:99999/", "https://example.org:x/", "https://..", "https://[::1", "http://[x]/",
        "https://example.org/" + "a" * 300,
    ],
)  # fmt: skip
def test_what_is_no_project_is_refused_without_being_quoted(url: str) -> None:
    if url.endswith("\n"):
        assert canonical_url(url) == url.strip()
        return
    with pytest.raises(ValueError, match=r"\w") as refused:
        canonical_url(url)
    assert not url or url not in str(refused.value)


def test_the_account_file_attaches_with_the_weak_key_and_the_weight() -> None:
    root = ET.fromstring(render_account_file(Attachment("https://example.org/a&b/", WEAK, 12.5)))

    assert root.findtext("master_url") == "https://example.org/a&b/"
    assert root.findtext("authenticator") == WEAK
    assert root.findtext("project_preferences/resource_share") == "12.5"


def test_a_key_is_in_no_repr() -> None:
    assert WEAK not in repr(Attachment("https://example.org/", WEAK, 1.0))
