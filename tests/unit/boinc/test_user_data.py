"""The cloud-init document: whatever goes in comes out as it was, or nothing comes out."""

import xml.etree.ElementTree as ET
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from libs.boinc.account import account_file_name
from libs.boinc.user_data import LARGEST_BYTES, Attachment, render_user_data

WEAK = "1_a2d3122f4a70a8a03d05fef689443657"
HOSTILE = st.text(max_size=60) | st.sampled_from(
    [
        "'\"\n- x: y",
        "</master_url><x>",
        "]]>",
        "{{ jinja }}",
        "#cloud-config",
        "\u2028runcmd:",
        "!!python/x",
        "|",
        "%0a",
        " on both sides ",
        "a\x00b",
    ]
)


def files_of(text: str) -> dict[str, dict[str, Any]]:
    assert text.startswith("#cloud-config\n")
    return {file["path"]: file for file in yaml.safe_load(text)["write_files"]}


def test_a_machine_attaches_to_every_project_when_it_first_starts() -> None:
    one = Attachment("https://one.example/", WEAK, 1.0)
    two = Attachment("http://two.example:8080/p/", "2_" + "b" * 32, 3.0)

    text = render_user_data([one, two], "tides-7", "token-1", guest_url="https://tides.example/")

    document, files = yaml.safe_load(text), files_of(text)
    assert document["hostname"] == "tides-7"
    assert "boinc-client" in document["packages"]
    first = files["/var/lib/boinc-client/account_one.example.xml"]
    assert (first["permissions"], first["owner"], first["defer"]) == ("0600", "boinc:boinc", True)
    assert WEAK in first["content"]
    assert "account_two.example_8080_p.xml" in " ".join(files)
    preferences = ET.fromstring(files["/etc/boinc-client/global_prefs_override.xml"]["content"])
    assert preferences.findtext("suspend_cpu_usage") == "0"
    assert preferences.findtext("work_buf_min_days") == "0.02"
    assert files["/etc/tides/guest_token"] | {"content": ""} == {
        "path": "/etc/tides/guest_token", "owner": "root:root", "permissions": "0600", "defer": True, "content": "",
    }  # fmt: skip
    assert "UMask=0077" in files["/etc/systemd/system/boinc-client.service.d/tides.conf"]["content"]
    assert document["runcmd"][-1] == ["systemctl", "restart", "boinc-client"]
    assert any("client_state.xml" in " ".join(command) for command in document["runcmd"])


def test_the_document_repeats_exactly() -> None:
    given_twice = [render_user_data([Attachment("https://a.example/", WEAK, 1.0)], "a", "t") for _ in "xx"]

    assert given_twice[0] == given_twice[1]


@settings(max_examples=150, deadline=None)
@given(address=HOSTILE, key=HOSTILE, token=HOSTILE, door=HOSTILE)
def test_hostile_text_comes_out_as_it_went_in_or_nothing_does(
    address: str, key: str, token: str, door: str
) -> None:
    url = f"https://{address}"
    assume(not any(0xD800 <= ord(character) <= 0xDFFF for character in door))
    try:
        text = render_user_data([Attachment(url, key, 2.0)], "tides-1", token, guest_url=door)
    except ValueError:
        assert (
            any(not text.isprintable() for text in (address, key, token)) or not token.isascii() or not token
        )
        return

    files = files_of(text)
    document = yaml.safe_load(text)
    assert set(document) == {
        "hostname", "preserve_hostname", "package_update", "packages", "write_files", "runcmd",
    }  # fmt: skip
    account = files[f"/var/lib/boinc-client/{account_file_name(url)}"]
    root = ET.fromstring(account["content"])
    assert (root.findtext("master_url") or "") == url
    assert (root.findtext("authenticator") or "") == key
    assert [child.tag for child in root] == ["master_url", "authenticator", "project_preferences"]
    assert files["/etc/tides/guest_token"]["content"] == token
    assert not door or files["/etc/tides/guest_url"]["content"] == door
    assert all("/../" not in path for path in files)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hostname": "Tides 1"}, "hostname"),
        ({"hostname": "a" * 64}, "hostname"),
        ({"hostname": "a\n"}, "hostname"),
        ({"guest_token": ""}, "guest_token"),
        ({"guest_token": "a\nb"}, "guest_token"),
        ({"attachments": [Attachment("https://a/", WEAK, 0.0)]}, "weight"),
        ({"attachments": [Attachment("https://a/", WEAK, float("nan"))]}, "weight"),
        ({"attachments": [Attachment("https://a/", WEAK, 1.0), Attachment("http://a", WEAK, 1.0)]}, "same"),
        ({"attachments": [Attachment("https://a/\x07", WEAK, 1.0)]}, "project_url"),
        ({"attachments": [Attachment(f"https://a/{n}", WEAK, 1.0) for n in range(60)]}, "larger"),
    ],
)
def test_what_cannot_be_written_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    arguments: dict[str, Any] = {"attachments": [], "hostname": "tides-1", "guest_token": "t"} | changes

    with pytest.raises(ValueError, match=named):
        render_user_data(**arguments)


def test_twenty_projects_fit() -> None:
    many = [Attachment(f"https://project-{n}.example/{'p' * 60}/", WEAK, 1.0) for n in range(20)]

    assert len(render_user_data(many, "tides-1", "t" * 64).encode()) < LARGEST_BYTES
