"""The document of a machine that becomes an image: it installs, forgets who it was, and turns itself off."""

import base64
import gzip
import stat
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.boinc.image import LARGEST_BYTES, Component, Proxy, Surroundings, render_image_data
from libs.boinc.signing import SigningKey
from libs.boinc.user_data import AccountManager, Agent, render_user_data
from libs.guest import agent_source
from tools.parts import cloud_init

AGENT = agent_source()
CA = "-----BEGIN CERTIFICATE-----\n" + ("A" * 64 + "\n") * 32 + "-----END CERTIFICATE-----\n"
EVERY = frozenset(Component)


def whole() -> str:
    around = Surroundings(CA, Proxy("proxy.example", 3128))
    return render_image_data(EVERY, agent_source=AGENT, around=around)


def files_of(text: str) -> dict[str, dict[str, Any]]:
    return {file["path"]: file for file in yaml.safe_load(text)["write_files"]}


def test_everything_together_is_valid_and_fits() -> None:
    document = yaml.safe_load(whole())

    jsonschema.Draft4Validator(cloud_init.find_schema()).validate(document)
    assert len(whole().encode()) < LARGEST_BYTES
    assert document["ca_certs"] == {"trusted": [CA]}
    program = files_of(whole())["/usr/local/sbin/tides-agent"]
    assert gzip.decompress(base64.b64decode(program["content"])).decode() == AGENT
    assert "proxy.example:3128" in files_of(whole())["/etc/apt/apt.conf.d/90tides"]["content"]


def test_it_belongs_to_nobody_and_starts_nothing_that_will_run_in_machines() -> None:
    document = yaml.safe_load(whole())

    assert "hostname" not in document
    assert not [path for path in files_of(whole()) if path.startswith("/etc/tides/")]
    started = [word for command in document["runcmd"] for word in command if word.endswith(".service")]
    assert set(started) == {"tides-build.service"}


def test_the_builder_forgets_who_it_was_only_after_its_packages_and_then_turns_off(tmp_path: Path) -> None:
    """The script with its folders moved and its commands recorded: it fails until apt works, and cleans nothing."""
    log, tools = tmp_path / "log", tmp_path / "bin"
    tools.mkdir()
    for name in ("cloud-init", "timeout", "sync"):
        _tool(tools / name, f'echo "{name} $*" >>{log}')
    _tool(tools / "systemctl", f'echo "systemctl $*" >>{log}\n{_client(tmp_path)}')
    _tool(tools / "apt-get", f'echo "apt-get $*" >>{log}; [ -e {tmp_path}/network ]')
    own = (
        *(
            "etc/machine-id",
            "etc/ssh/ssh_host_rsa_key",
            "var/lib/boinc-client/client_state.xml",
            "someone/.bash_history",
        ),
        *("var/lib/boinc-client/account_a.example.xml", "var/log/syslog", "var/log/journal/x/system.journal"),
        *("var/lib/dbus/machine-id", "etc/boinc-client/gui_rpc_auth.cfg", "etc/tides/agent.json"),
        *("usr/local/sbin/tides-build", "etc/systemd/system/tides-build.service"),
    )
    kept = ("usr/local/sbin/tides-agent", "etc/ssh/sshd_config")
    for path in (*own, *kept):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("this machine's own")
    (tmp_path / "etc/passwd").write_text(f"someone:x:1:1::{tmp_path}/someone:/bin/sh\n")
    text = files_of(whole())["/usr/local/sbin/tides-build"]["content"].removeprefix("#!/bin/sh\n")
    for root in ("etc", "var", "usr"):
        text = text.replace(f" /{root}/", f" {tmp_path}/{root}/").replace(
            f"={f'/{root}/'}", f"={tmp_path}/{root}/"
        )
        text = text.replace(f">/{root}/", f">{tmp_path}/{root}/")
    script = _tool(tmp_path / "build", text)

    def run() -> int:
        env = {"PATH": f"{tools}:/usr/bin:/bin"}
        return subprocess.run([str(script)], env=env, check=False).returncode

    assert run() != 0
    assert all((tmp_path / path).read_text() for path in own)
    assert "poweroff" not in log.read_text()

    (tmp_path / "network").touch()
    assert run() == 0
    assert [path for path in own if (tmp_path / path).is_file() and (tmp_path / path).read_text()] == []
    assert (tmp_path / "etc/machine-id").read_text() == ""
    assert all((tmp_path / path).read_text() for path in kept)
    said = log.read_text()
    masked, installed = said.index("mask boinc-client"), said.rindex("install -y")
    assert masked < installed < said.index("unmask boinc-client") < said.index("cloud-init clean")
    assert said.splitlines()[-1] == "systemctl poweroff"


def _client(root: Path) -> str:
    """What a client that the origin starts does: at its end, by whichever command that comes, it says who it is."""
    ends = f"[ -e {root}/stopped ] || echo it >{root}/var/lib/boinc-client/client_state.xml; touch {root}/stopped"
    return f'case "$1 $*" in *stop*boinc-client|poweroff*) {ends} ;; esac'


def test_without_the_client_the_builder_asks_no_mirror(tmp_path: Path) -> None:
    script = files_of(render_image_data(frozenset({Component.AGENT}), agent_source=AGENT))[
        "/usr/local/sbin/tides-build"
    ]
    (tmp_path / "build").write_text(script["content"])

    assert "apt-get -q update" not in script["content"]
    assert script["permissions"] == "0755"
    assert subprocess.run(["sh", "-n", str(tmp_path / "build")], check=False).returncode == 0


def test_what_an_image_holds_is_neither_fetched_nor_written_again() -> None:
    manager = AccountManager("https://tides.example/boinc/", SigningKey.generate().public, "a" * 32)
    agent = Agent("https://tides.example/guests/", AGENT)

    def made(*present: Component) -> str:
        around = Surroundings(CA, present=frozenset(present))
        return render_user_data([], "tides-7", "t", manager=manager, agent=agent, around=around)

    bare, spared = made(), made(*Component)
    assert "apt-get" in files_of(bare)["/usr/local/sbin/tides-setup"]["content"]
    assert "apt-get" not in files_of(spared)["/usr/local/sbin/tides-setup"]["content"]
    assert set(files_of(bare)) - set(files_of(spared)) == {
        "/usr/local/sbin/tides-agent",
        "/etc/systemd/system/tides-agent.service",
    }
    assert "/etc/tides/agent.json" in files_of(spared)
    assert "ca_certs" not in yaml.safe_load(spared)
    assert yaml.safe_load(spared)["runcmd"] == yaml.safe_load(bare)["runcmd"]
    jsonschema.Draft4Validator(cloud_init.find_schema()).validate(yaml.safe_load(spared))


def test_a_machine_whose_image_was_said_to_hold_the_client_and_does_not_says_so(tmp_path: Path) -> None:
    around = Surroundings(present=frozenset({Component.BOINC}))
    text = files_of(render_user_data([], "tides-7", "t", around=around))["/usr/local/sbin/tides-setup"][
        "content"
    ]
    moved = text.replace("/etc/", f"{tmp_path}/etc/").replace("command -v boinc", "false")
    script = _tool(tmp_path / "setup", moved.removeprefix("#!/bin/sh\n"))

    said = subprocess.run([str(script)], check=False, capture_output=True, text=True)

    assert said.returncode == 1
    assert "the image was said to hold boinc-client" in said.stderr


@settings(max_examples=60, deadline=None)
@given(
    chosen=st.frozensets(st.sampled_from(Component)),
    ca=st.none() | st.just(CA) | st.text(max_size=80),
    host=st.text(max_size=30) | st.sampled_from(['x";', "a b", "proxy.example", "-x", "$(id)"]),
    port=st.integers(-1, 70_000),
)
def test_hostile_words_come_out_as_they_went_in_or_nothing_does(
    chosen: frozenset[Component], ca: str | None, host: str, port: int
) -> None:
    try:
        text = render_image_data(chosen, agent_source=AGENT, around=Surroundings(ca, Proxy(host, port)))
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert refusal.split(":")[0] in {"components", "ca_pem", "proxy"}
        return
    document, files = yaml.safe_load(text), files_of(text)
    assert set(document) == {"write_files", "runcmd"} | ({"ca_certs"} if Component.CA in chosen else set())
    assert ("/usr/local/sbin/tides-agent" in files) == (Component.AGENT in chosen)
    assert files["/etc/apt/apt.conf.d/90tides"]["content"].splitlines()[0] == (
        f'Acquire::http::Proxy "http://{host}:{port}";'
    )
    if Component.CA in chosen:
        assert document["ca_certs"]["trusted"] == [ca]


@pytest.mark.parametrize(
    ("components", "arguments", "named"),
    [
        (frozenset(), {}, "components"),
        ({Component.AGENT}, {}, "agent_source"),
        ({Component.CA}, {}, "ca_pem"),
        ({Component.BOINC}, {"around": Surroundings(CA)}, "ca_pem"),
        ({Component.CA}, {"around": Surroundings("-----BEGIN PRIVATE KEY-----\nAAAA\n")}, "ca_pem"),
        ({Component.CA}, {"around": Surroundings(CA * 8)}, "larger"),
        ({Component.BOINC}, {"around": Surroundings(proxy=Proxy("x", 0))}, "proxy"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(
    components: set[Component], arguments: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        render_image_data(frozenset(components), **arguments)


def _tool(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755 | stat.S_IXUSR)
    return path
