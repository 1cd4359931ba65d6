"""The cloud-init document: whatever goes in comes out as it was, or nothing comes out."""

import base64
import gzip
import json
import stat
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.boinc.account import account_file_name
from libs.boinc.signing import SigningKey
from libs.boinc.user_data import (
    LARGEST_BYTES,
    AccountManager,
    Agent,
    Attachment,
    Proxy,
    Surroundings,
    render_user_data,
    slot_hostname,
)
from libs.guest import agent_source
from tools.parts import PartMissing, cloud_init

WEAK = "1_a2d3122f4a70a8a03d05fef689443657"
KEY = SigningKey.generate().public
MANAGER = AccountManager("https://tides.example/boinc/", KEY, "a" * 32)
AGENT = Agent("https://tides.example/guests/", agent_source())
CA = "-----BEGIN CERTIFICATE-----\n" + ("A" * 64 + "\n") * 32 + "-----END CERTIFICATE-----\n"
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


def whole() -> str:
    around = Surroundings(CA, Proxy("proxy.example", 3128, ("tides.example", "lab.example")))
    return render_user_data([], "tides-7", "t" * 43, manager=MANAGER, agent=AGENT, around=around)


def test_a_machine_attaches_to_every_project_when_it_first_starts() -> None:
    one = Attachment("https://one.example/", WEAK, 1.0)
    two = Attachment("http://two.example:8080/p/", "2_" + "b" * 32, 3.0)

    files = files_of(render_user_data([one, two], "tides-7", "token-1"))

    first = files["/etc/tides/boinc/account_one.example.xml"]
    assert (first["permissions"], first["owner"]) == ("0600", "root:root")
    assert WEAK in first["content"]
    assert "/etc/tides/boinc/account_two.example_8080_p.xml" in files
    preferences = ET.fromstring(files["/etc/tides/boinc/global_prefs_override.xml"]["content"])
    assert preferences.findtext("suspend_cpu_usage") == "0"
    assert preferences.findtext("work_buf_min_days") == "0.02"
    assert files["/etc/tides/guest_token"]["permissions"] == "0600"
    assert "UMask=0077" in files["/etc/systemd/system/boinc-client.service.d/tides.conf"]["content"]


def test_cloud_init_itself_needs_no_network_and_the_unit_that_does_repeats() -> None:
    document, files = yaml.safe_load(whole()), files_of(whole())

    assert "packages" not in document
    assert "package_update" not in document
    assert ["systemctl", "start", "--no-block", "tides-setup.service", "tides-agent.service"] in document[
        "runcmd"
    ]
    assert "Restart=on-failure" in files["/etc/systemd/system/tides-setup.service"]["content"]
    assert "Restart=always" in files["/etc/systemd/system/tides-agent.service"]["content"]


def test_the_account_manager_is_pinned_by_its_key_before_the_first_contact() -> None:
    files = files_of(whole())
    url = ET.fromstring(files["/etc/tides/boinc/acct_mgr_url.xml"]["content"])
    login = files["/etc/tides/boinc/acct_mgr_login.xml"]

    assert url.findtext("url") == MANAGER.url
    assert (url.findtext("signing_key") or "").lstrip("\n") == KEY.text
    assert ET.fromstring(login["content"]).findtext("authenticator") == "t" * 43
    assert (ET.fromstring(login["content"]).findtext("opaque") or "").strip() == MANAGER.opaque
    assert login["permissions"] == "0600"


def test_the_agent_comes_whole_and_knows_its_door_and_proxy() -> None:
    files = files_of(whole())
    program = files["/usr/local/sbin/tides-agent"]

    assert gzip.decompress(base64.b64decode(program["content"])).decode() == AGENT.source
    assert program["encoding"] == "gz+b64"
    assert json.loads(files["/etc/tides/agent.json"]["content"]) == {
        "door": AGENT.door_url,
        "token": "t" * 43,
        "proxy": "http://proxy.example:3128",
    }
    assert files["/etc/tides/agent.json"]["permissions"] == "0600"
    assert "proxy.example:3128" in files["/etc/apt/apt.conf.d/90tides"]["content"]
    config = ET.fromstring(files["/etc/tides/boinc/cc_config.xml"]["content"])
    assert config.findtext("options/proxy_info/http_server_name") == "proxy.example"
    assert config.findtext("options/proxy_info/no_proxy") == "tides.example,lab.example"


def test_everything_together_fits_with_a_large_authority() -> None:
    assert len(whole().encode()) < LARGEST_BYTES


@pytest.mark.parametrize(
    "text", [whole(), render_user_data([Attachment("https://a.example/", WEAK, 1)], "a", "t")]
)
def test_it_is_what_cloud_init_calls_valid(text: str) -> None:
    try:
        schema = cloud_init.find_schema()
    except PartMissing as missing:
        pytest.fail(str(missing), pytrace=False)
    document = yaml.safe_load(text)
    jsonschema.Draft4Validator(schema).validate(document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft4Validator(schema).validate(document | {"write_files": [{"content": 1}]})


def test_the_scripts_are_ones_that_a_shell_and_a_machines_python_can_read(tmp_path: Path) -> None:
    files = files_of(whole())
    script = tmp_path / "setup"
    script.write_text(files["/usr/local/sbin/tides-setup"]["content"])

    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    compile(AGENT.source, "agent", "exec", flags=0)


def test_the_setup_waits_for_nothing_but_its_packages_and_runs_once(tmp_path: Path) -> None:
    """The script with its folders moved and its commands recorded: it fails until apt works, then never again."""
    log, tools = tmp_path / "log", tmp_path / "bin"
    tools.mkdir()
    for name in ("systemctl", "install", "chown"):
        _tool(tools / name, f'echo "{name} $*" >>{log}')
    _tool(tools / "apt-get", f'echo "apt-get $*" >>{log}; [ -e {tmp_path}/network ]')
    for folder in ("etc/tides/boinc", "etc/boinc-client", "var/lib/boinc-client"):
        (tmp_path / folder).mkdir(parents=True)
    for path, file in files_of(whole()).items():
        if path.startswith("/etc/tides/boinc/"):
            (tmp_path / path[1:]).write_text(file["content"])
    (tmp_path / "var/lib/boinc-client/client_state.xml").write_text("a clone's")
    text = files_of(whole())["/usr/local/sbin/tides-setup"]["content"]
    moved = text.replace("/etc/", f"{tmp_path}/etc/").replace("/var/", f"{tmp_path}/var/")
    script = _tool(tmp_path / "setup", moved.removeprefix("#!/bin/sh\n").replace("command -v boinc", "false"))

    def run() -> int:
        env = {"PATH": f"{tools}:/usr/bin:/bin"}
        return subprocess.run([str(script)], env=env, check=False).returncode

    assert run() != 0
    assert "restart boinc-client" not in log.read_text()
    (tmp_path / "network").touch()
    assert run() == 0
    said = log.read_text()
    assert said.index("-m 0600") < said.index("systemctl restart boinc-client")
    assert not (tmp_path / "var/lib/boinc-client/client_state.xml").exists()
    assert not list((tmp_path / "etc/tides/boinc").glob("ac*.xml"))
    password = tmp_path / "etc/boinc-client/gui_rpc_auth.cfg"
    assert len(password.read_text()) == 32
    assert stat.S_IMODE(password.stat().st_mode) == 0o640
    assert run() == 0
    assert log.read_text() == said


def _tool(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_the_document_repeats_exactly() -> None:
    assert whole() == whole()


def test_a_slots_name_is_its_own_and_its_successors() -> None:
    names = {slot_hostname(place, number) for place in (b"one", b"two") for number in range(50)}

    assert len(names) == 100
    assert slot_hostname(b"one", 7) == slot_hostname(b"one", 7)
    render_user_data([], slot_hostname(b"one", 2**31), "t")


@settings(max_examples=100, deadline=None)
@given(address=HOSTILE, key=HOSTILE, token=HOSTILE, opaque=HOSTILE)
def test_hostile_text_comes_out_as_it_went_in_or_nothing_does(
    address: str, key: str, token: str, opaque: str
) -> None:
    url = f"https://{address}"
    try:
        by_file = render_user_data([Attachment(url, key, 2.0)], "tides-1", token)
    except ValueError:
        by_file = ""
    if by_file:
        assert set(yaml.safe_load(by_file)) == {"hostname", "preserve_hostname", "write_files", "runcmd"}
        files = files_of(by_file)
        root = ET.fromstring(files[f"/etc/tides/boinc/{account_file_name(url)}"]["content"])
        assert (root.findtext("master_url") or "") == url
        assert (root.findtext("authenticator") or "") == key
        assert [child.tag for child in root] == ["master_url", "authenticator", "project_preferences"]
        assert files["/etc/tides/guest_token"]["content"] == token
        assert all("/../" not in path for path in files)
    try:
        managed = render_user_data([], "tides-1", token, manager=AccountManager(MANAGER.url, KEY, opaque))
    except ValueError:
        return
    login = ET.fromstring(files_of(managed)["/etc/tides/boinc/acct_mgr_login.xml"]["content"])
    assert login.findtext("authenticator") == token
    assert [child.tag for child in login] == ["authenticator", *(["opaque"] if opaque else [])]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hostname": "Tides 1"}, "hostname"),
        ({"hostname": "a" * 64}, "hostname"),
        ({"hostname": "a\n"}, "hostname"),
        ({"guest_token": ""}, "guest_token"),
        ({"guest_token": "a\nb"}, "guest_token"),
        ({"attachments": [Attachment("https://a/", WEAK, 0.0)]}, "weight"),
        (
            {"attachments": [Attachment("https://a/", WEAK, 1.0), Attachment("https://b/", WEAK, -1.0)]},
            "weight",
        ),
        ({"attachments": [Attachment("https://a/", WEAK, float("nan"))]}, "weight"),
        ({"attachments": [Attachment("https://a/", WEAK, 1.0), Attachment("http://a", WEAK, 1.0)]}, "same"),
        ({"attachments": [Attachment("https://a/\x07", WEAK, 1.0)]}, "project_url"),
        ({"attachments": [Attachment(f"https://a/{n}", WEAK, 1.0) for n in range(60)]}, "larger"),
        ({"attachments": [Attachment("https://a/", WEAK, 1.0)], "manager": MANAGER}, "attachments"),
        ({"manager": AccountManager("https://localhost/am/", KEY)}, "manager"),
        ({"manager": AccountManager("https://tides.example/am", KEY)}, "manager"),
        ({"manager": AccountManager("http://tides.example/am/", KEY)}, "manager"),
        ({"manager": AccountManager(MANAGER.url, KEY, "</opaque>")}, "opaque"),
        ({"agent": Agent("http://tides.example/", "x")}, "agent"),
        ({"agent": Agent("https://tides.example/x", "x")}, "agent"),
        ({"around": Surroundings(proxy=Proxy('x";', 1))}, "proxy"),
        ({"around": Surroundings(proxy=Proxy("x", 0))}, "proxy"),
        ({"around": Surroundings(proxy=Proxy("x", 1, ("</no_proxy>",)))}, "proxy"),
        ({"around": Surroundings("A" * 20_000)}, "ca_pem"),
    ],
)
def test_what_cannot_be_written_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    arguments: dict[str, Any] = {"attachments": [], "hostname": "tides-1", "guest_token": "t"} | changes

    with pytest.raises(ValueError, match=named):
        render_user_data(**arguments)


def test_as_many_projects_as_an_organisation_may_have_fit() -> None:
    many = [Attachment(f"https://project-{n}.example/{'p' * 40}/", WEAK, 1.0) for n in range(12)]

    assert len(render_user_data(many, "tides-1", "t" * 64).encode()) < LARGEST_BYTES
