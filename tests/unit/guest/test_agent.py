"""The agent's parts without a client: its clock, its silence, its secrets, what it is made of."""

import ast
import datetime as dt
import http.server
import importlib.util
import ipaddress
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from libs.guest import agent_source

SOURCE = Path(__file__).parents[3] / "libs" / "guest" / "agent.py"
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


agent: Any = load(SOURCE, "tides_agent")


class Listener:
    """A door over TLS whose certificate is valid for these dates; it keeps what it was asked."""

    def __init__(self, folder: Path, begins: dt.datetime, ends: dt.datetime) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answer: tuple[int, bytes] = (200, b'{"commands": []}')
        self.headers: dict[str, str] = {}
        listener = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(404)
                self.end_headers()

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                listener.asked.append((self.path, body))
                self.send_response(listener.answer[0])
                for name, value in listener.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(listener.answer[1])

            def date_time_string(self, timestamp: float | None = None) -> str:
                return formatdate(time.clock_gettime(time.CLOCK_REALTIME), usegmt=True)

            def log_message(self, *_: Any) -> None:
                return

        self.ca_file = folder / "ca.pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificates(folder, begins, ends))
        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def door(self, set_clock: Any) -> Any:
        url = f"https://127.0.0.1:{self.server.server_port}/guests/"
        return agent.Door({"door": url, "ca_file": str(self.ca_file), "proxy": None}, set_clock)

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def certificates(folder: Path, begins: dt.datetime, ends: dt.datetime) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "door")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(begins).not_valid_after(ends)
    signed = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    (folder / "ca.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "ca.pem", folder / "key.pem"


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(tmp_path, today() - DAY, today() + DAY)
    yield listener
    listener.close()


def today() -> dt.datetime:
    return dt.datetime.fromtimestamp(int(time.clock_gettime(time.CLOCK_REALTIME)), dt.UTC)


@pytest.mark.parametrize("off", [-400, 400])
def test_a_certificate_out_of_its_time_makes_the_agent_ask_for_the_time_and_tell_no_secret(
    tmp_path: Path, off: int
) -> None:
    listener = Listener(tmp_path, today() + (off - 1) * DAY, today() + (off + 1) * DAY)
    set_to: list[float] = []
    door = listener.door(set_to.append)
    try:
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            door.post("beat", {"x": 1}, "secret")
    finally:
        listener.close()
    assert listener.asked == []
    assert set_to == []  # the clocks agree: it is the certificate that is wrong


def test_a_wrong_clock_is_set_by_the_doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener(tmp_path, today() - 3 * DAY, today() - DAY)
    set_to: list[float] = []
    real = time.clock_gettime
    monkeypatch.setattr(agent.time, "time", lambda: real(time.CLOCK_REALTIME) + 86_400 * 300)
    try:
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            listener.door(set_to.append).post("beat", {}, "secret")
    finally:
        listener.close()
    assert [abs(at - real(time.CLOCK_REALTIME)) < 60 for at in set_to] == [True]
    assert listener.asked == []


def test_another_authority_is_never_believed_not_even_its_time(tmp_path: Path) -> None:
    listener = Listener(tmp_path, today() - 3 * DAY, today() - DAY)
    certificates(tmp_path, today() - DAY, today() + DAY)
    set_to: list[float] = []
    try:
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            listener.door(set_to.append).post("beat", {}, "secret")
    finally:
        listener.close()
    assert (set_to, listener.asked) == ([], [])


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>"), (200, b"[]"), (200, b"\xff"), (500, b"{}"), (302, b""), (200, b"{" * 70_000)],
)
def test_an_answer_that_is_none_is_trouble_and_no_more(listener: Listener, status: int, body: bytes) -> None:
    listener.answer = status, body
    listener.headers = {"Location": "https://127.0.0.1:1/elsewhere"}
    with pytest.raises((OSError, ValueError)):
        listener.door(None).post("beat", {}, "secret")
    assert len(listener.asked) == 1


@pytest.mark.parametrize(
    "url", ["http://tides.example/", "ftp://x/", "http://127.0.0.1.example/", "http://127.0.0.1:1@example/"]
)
def test_no_door_without_tls(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        agent.Door({"door": url, "ca_file": None, "proxy": None}, None)


class Silent:
    """A client that is asked and does as it is told, or is not there."""

    def __init__(self) -> None:
        self.modes: list[str] = []
        self.asked: list[str] = []
        self.attached = ["https://project.example/"]
        self.away = False

    def ask(self, body: str) -> str:
        if self.away:
            raise ConnectionRefusedError("away")
        self.asked.append(body)
        return ""

    def run_mode(self, mode: str) -> None:
        self.ask(mode)
        self.modes.append(mode)

    def alerts(self) -> dict[str, str]:
        return {}

    def projects(self) -> list[str]:
        self.ask("projects")
        return self.attached

    def throttle(self, percent: float) -> None:
        self.ask(f"throttle {percent}")

    def tasks(self) -> list[dict[str, Any]]:
        self.ask("tasks")
        return []


def new_agent(folder: Path, at: float = 1000.0, **settings: Any) -> Any:
    files = {"state": str(folder / "s" / "agent.json"), "heard": str(folder / "heard")}
    given = {"door": "https://127.0.0.1:9/", "token": "t", "poweroff": ["touch", str(folder / "off")]}
    one = agent.Agent(given | files | {"dead_man_s": 60, "poweroff_after_s": 60} | settings, at)
    one.boinc = Silent()
    one._contact = lambda now: None
    return one


def test_silence_suspends_and_then_ends_the_machine_whatever_the_clock_says(tmp_path: Path) -> None:
    one = new_agent(tmp_path)
    for now in (1059, 1061, 1062):
        one.step(now)
    assert one.boinc.modes == ["never"]
    one.step(1119)
    assert not (tmp_path / "off").exists()
    one.step(1121)
    assert (tmp_path / "off").exists()
    assert "<quit/>" in one.boinc.asked


def test_a_crash_of_the_agent_does_not_set_the_timer_back(tmp_path: Path) -> None:
    one = new_agent(tmp_path)
    one._hear({}, 1000.0)
    again = new_agent(tmp_path, at=1055.0)
    again.step(1061.0)
    assert again.boinc.modes == ["never"]
    assert again.state["secret"] == one.state["secret"]


def test_being_heard_again_lets_boinc_go_on(tmp_path: Path) -> None:
    one = new_agent(tmp_path)
    one.step(1070)
    one._hear({}, 1080.0)
    one.step(1081)
    assert one.boinc.modes == ["never", "auto"]


def test_a_suspension_that_boinc_did_not_hear_is_repeated(tmp_path: Path) -> None:
    one = new_agent(tmp_path)
    one.boinc.away = True
    one.step(1061)
    one.boinc.away = False
    one.step(1062)
    assert one.boinc.modes == ["never"]


def test_a_client_without_projects_is_made_to_ask_its_manager_ever_more_seldom(tmp_path: Path) -> None:
    one = new_agent(tmp_path, dead_man_s=10_000)
    one.boinc.attached = []
    for now in range(1000, 2000):
        one.step(now)
    syncs = [body for body in one.boinc.asked if "use_config_file" in body]
    assert 5 <= len(syncs) <= 8


@pytest.mark.parametrize(
    "answer",
    [
        {"commands": 7},
        {"commands": [1, None, {}, {"id": 0}, {"id": "a"}, {"id": "b", "do": "format the disk"}]},
        {"commands": [{"id": "c", "do": "throttle", "percent": "much"}]},
        {"heartbeat_s": float("nan"), "dead_man_s": -1},
        {"heartbeat_s": "soon"},
    ],
)
def test_a_door_that_talks_nonsense_harms_nothing(tmp_path: Path, answer: dict[str, Any]) -> None:
    one = new_agent(tmp_path)
    one._hear(answer, 1001.0)
    one.step(1002.0)
    assert 1 <= one.settings["heartbeat_s"] <= 86_400
    assert one.settings["dead_man_s"] >= 2
    assert all("error" in outcome for outcome in one.state["outcomes"].values())


def test_a_command_is_done_once_and_its_outcome_told_until_the_door_has_it(tmp_path: Path) -> None:
    one = new_agent(tmp_path)
    order = {"commands": [{"id": "x", "do": "stop"}]}
    one._hear(order, 1001.0)
    asked = len(one.boinc.asked)
    one._hear(order, 1002.0)
    assert one.state["outcomes"] == {"x": {"done": True}}
    assert len(one.boinc.asked) == asked
    again = new_agent(tmp_path)
    again._hear(order, 1003.0)
    assert again.boinc.asked == []
    again._hear({}, 1004.0)
    assert again.state["outcomes"] == {}


def test_a_throttle_of_nothing_holds_through_silence_and_drains_until_it_is_lifted(tmp_path: Path) -> None:
    one = new_agent(tmp_path)
    one.boinc.attached = []
    one._hear({"commands": [{"id": "a", "do": "throttle", "percent": 0}]}, 1001.0)
    assert one.boinc.modes == ["never"]
    one.step(1062)  # nobody is heard of
    one._hear({"commands": [{"id": "b", "do": "resume"}]}, 1063.0)
    one.step(1064)
    assert set(one.boinc.modes) == {"never"}
    one._hear({"commands": [{"id": "c", "do": "throttle", "percent": 40}]}, 1065.0)
    assert one.boinc.modes[-1] == "auto"
    assert "throttle 40.0" in one.boinc.asked
    assert one.state["outcomes"] == {"c": {"done": True}}


def test_a_machine_that_is_stopped_says_so_before_it_is_shut_down(tmp_path: Path) -> None:
    one = new_agent(tmp_path)
    one._hear({"commands": [{"id": "x", "do": "stop"}]}, 1001.0)
    assert one.beat_at == 1001.0
    one.step(1004)
    assert not (tmp_path / "off").exists()
    one.step(1005)
    assert (tmp_path / "off").exists()
    assert "<quit/>" in one.boinc.asked


def test_the_secret_is_drawn_once_and_kept_from_others(tmp_path: Path) -> None:
    one = new_agent(tmp_path)
    file = tmp_path / "s" / "agent.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(one.state["secret"]) >= 40
    file.write_text("half a fi")
    assert new_agent(tmp_path).state["secret"] != one.state["secret"]


def test_it_is_one_file_for_old_pythons_with_the_standard_library_alone() -> None:
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))


class Untyped(ast.NodeTransformer):
    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        assert node.value is not None
        return ast.Assign([node.target], node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        for each in ast.walk(node.args):
            if isinstance(each, ast.arg):
                each.annotation = None
        return self.generic_visit(node)


def test_what_a_machine_gets_is_the_same_program_without_its_remarks(tmp_path: Path) -> None:
    path = tmp_path / "agent.py"
    path.write_text(agent_source())
    shipped = ast.parse(path.read_text(), feature_version=(3, 9))
    written = Untyped().visit(ast.parse(SOURCE.read_text()))
    for node in ast.walk(written):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            del node.body[0]
    assert ast.dump(shipped) == ast.dump(written)
    assert agent_source().startswith("#!/usr/bin/python3\n")
    said = subprocess.run([sys.executable, str(path), "run", "/nowhere"], capture_output=True, check=False)
    assert said.returncode != 0
