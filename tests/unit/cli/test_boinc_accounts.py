"""`tides boinc weak-key`: an account is found or made with consent, and only its weak key is told."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.unit.cli.conftest import Type

STRONG, WEAK = "04ba23378c00cfa1f309fe3ba59057d5", "1_a2d3122f4a70a8a03d05fef689443657"
EMAIL, PASSWORD, TERMS = "science@enterprise.example", "a long password", "Be kind."
HASH = hashlib.sha256(TERMS.encode()).hexdigest()


class Project:
    """A project of one account."""

    def __init__(self) -> None:
        self.passwords: dict[str, str] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.down = False
        self.url = ""

    def answer(self, name: str, given: dict[str, str]) -> str:
        self.asked.append((name, given))
        if name == "get_project_config.php":
            state = "<web_stopped>1</web_stopped>" if self.down else ""
            terms = f"<terms_of_use>{TERMS}</terms_of_use>"
            return f"<project_config><master_url>{self.url}</master_url>{state}{terms}</project_config>"
        if name == "am_get_info.php" and given["account_key"] == STRONG:
            return f"<am_get_info_reply><success/><id>1</id><weak_auth>{WEAK}</weak_auth></am_get_info_reply>"
        known = self.passwords.get(given["email_addr"])
        if name == "create_account.php" and given.get("consent_flag") == "1":
            known = self.passwords.setdefault(given["email_addr"], given["passwd_hash"])
        if known == given["passwd_hash"]:
            return f"<account_out><authenticator>{STRONG}</authenticator></account_out>"
        return "<error><error_num>-206</error_num><error_msg>Invalid password</error_msg></error>"


@pytest.fixture
def project() -> Iterator[Project]:
    one = Project()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            text = one.answer(parts.path.rpartition("/")[2], dict(parse_qsl(parts.query)))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    one.url = f"http://127.0.0.1:{server.server_port}/lab/"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield one
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_account_is_made_only_by_who_has_read_the_terms(tides: Type, project: Project) -> None:
    words = (
        "boinc",
        "weak-key",
        project.url,
        "--email",
        EMAIL,
        "--create",
        "--user-name",
        "E",
        "--password-stdin",
    )

    unread = tides(*words, stdin=PASSWORD)
    assert (unread.code, unread.out.strip()) == (1, TERMS)
    assert f"--agree {HASH[:16]}" in unread.err
    assert tides(*words, "--agree", "0123456789abcdef", stdin=PASSWORD).code == 1
    assert tides(*words, "--agree", "", stdin=PASSWORD).code == 1
    assert {name for name, _ in project.asked} == {"get_project_config.php"}

    made = tides(*words, "--agree", HASH[:16], stdin=PASSWORD)
    assert (made.code, made.out.strip()) == (0, WEAK)
    assert tides(*words, "--agree", HASH, stdin=PASSWORD).out.strip() == WEAK


def test_an_account_that_is_there_needs_its_password_and_only_the_weak_key_is_told(
    tides: Type, project: Project
) -> None:
    project.passwords[EMAIL] = hashlib.md5((PASSWORD + EMAIL).encode()).hexdigest()
    words = ("boinc", "weak-key", project.url, "--email", EMAIL, "--password-stdin")

    found, refused = tides(*words, stdin=PASSWORD), tides(*words, stdin="wrong")

    assert (found.code, found.out.strip()) == (0, WEAK)
    assert (refused.code, refused.out, refused.err.strip()) == (1, "", "tides: Invalid password")
    told = found.out + found.err + refused.err
    assert STRONG not in told
    assert PASSWORD not in told


def test_a_project_that_is_down_or_none_is_told_in_one_line(tides: Type, project: Project) -> None:
    project.down = True
    for url in (project.url, "http://127.0.0.1:9/", "nonsense"):
        said = tides("boinc", "weak-key", url, "--email", EMAIL, "--password-stdin", stdin=PASSWORD)
        assert (said.code, said.out, len(said.err.splitlines())) == (1, "", 1)
