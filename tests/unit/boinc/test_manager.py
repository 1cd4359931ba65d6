"""The account-manager codec: what a real client said, what it would take, and nothing malformed going out."""

import dataclasses
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.boinc.manager import (
    LARGEST_REQUEST,
    HostInfo,
    ManagerReply,
    ManagerRequest,
    NoRequest,
    ProjectAccount,
    ReportedProject,
    ReportedTask,
    parse_reply,
    parse_request,
    render_config,
    render_error,
    render_reply,
    render_request,
)
from libs.boinc.signing import SigningKey

REAL = (Path(__file__).parent / "data" / "request_7.20.5.xml").read_bytes()
KEY = SigningKey.generate()
URL = "https://project.example/lab/"
WEAK = "1_a2d3122f4a70a8a03d05fef689443657"
SIGNATURE = KEY.sign(URL)

WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
COUNT = st.integers(0, 10**9)
SECONDS = st.integers(0, 10**9).map(float)
PROJECTS = st.builds(
    ReportedProject,
    **{name: WORD for name in ("url", "name")},
    **{name: COUNT for name in ("host_id", "jobs_succeeded", "jobs_failed", "failed_contacts")},
    **{name: SECONDS for name in ("resource_share", "queued_s", "in_progress_s", "cpu_s", "cpu_ec")},
    **{
        name: st.booleans()
        for name in ("suspended", "no_more_work", "ended", "starved", "attached_by_manager")
    },
)
TASKS = st.builds(
    ReportedTask,
    WORD,
    WORD,
    st.integers(0, 9),
    st.booleans(),
    SECONDS,
    SECONDS,
    st.sampled_from([0.0, 0.5, 1.0]),
)
REQUESTS = st.builds(
    ManagerRequest,
    authenticator=st.text("0123456789abcdef", min_size=1, max_size=32),
    opaque=st.text("0123456789abcdef", max_size=32),
    **{
        name: WORD
        for name in ("host_cpid", "previous_host_cpid", "domain_name", "client_version", "run_mode")
    },
    platforms=st.lists(WORD, max_size=3).map(tuple),
    projects=st.lists(PROJECTS, max_size=4).map(tuple),
    tasks=st.lists(TASKS, max_size=4).map(tuple),
    host=st.builds(HostInfo, COUNT, SECONDS, SECONDS, SECONDS, WORD, WORD, WORD),
)


def account(**changes: Any) -> ProjectAccount:
    return ProjectAccount(**({"url": URL, "signature": SIGNATURE, "authenticator": WEAK} | changes))


def reply(**changes: Any) -> ManagerReply:
    given: dict[str, Any] = {"name": "Tides", "signing_key": KEY.public, "repeat_s": 300}
    return ManagerReply(**given | changes)


def test_a_real_request_is_read() -> None:
    asked = parse_request(REAL)

    assert asked.authenticator == "d" * 32
    assert asked.opaque == "9c146127e64dda1d"
    assert asked.client_version == "7.20.5"
    assert asked.platforms == ("x86_64-pc-linux-gnu",)
    assert asked.host.cpus == 2
    [project] = asked.projects
    assert (project.url, project.host_id, project.resource_share) == ("http://project.example/lab/", 1, 70.0)
    assert (project.cpu_s, project.cpu_ec) == (28.256088, 0.065408)
    assert project.attached_by_manager
    assert project.starved
    assert not project.no_more_work
    assert "d" * 32 not in repr(asked)


@settings(max_examples=100, deadline=None)
@given(REQUESTS)
def test_a_request_survives_the_wire(request: ManagerRequest) -> None:
    assert parse_request(render_request(request)) == request


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_a_mutated_real_request_is_read_or_refused_and_never_raises(seed: int) -> None:
    chance = random.Random(seed)
    body = bytearray(REAL)
    for _ in range(chance.randrange(1, 30)):
        at = chance.randrange(len(body))
        what = chance.randrange(4)
        if what == 0:
            body[at] = chance.randrange(256)
        elif what == 1:
            del body[at : at + chance.randrange(200)]
        elif what == 2:
            body[at:at] = chance.choice(
                [b"<", b">", b"</project>", b"&", b"\x00", b"<opaque>", b"nan", b"9" * 400]
            )
        else:
            body[at:at] = body[at : at + chance.randrange(2000)]
    try:
        parse_request(bytes(body))
    except NoRequest:
        assert bytes(body) != REAL


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"authenticator=x&y=1", b"\xff" * 100, "<acct_mgr_request>".encode("utf-16")]
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(NoRequest):
        parse_request(body)


def test_fifty_megabytes_are_refused_at_once() -> None:
    body = b"<acct_mgr_request>" + b"<project>" * (50 * 1024 * 1024 // 9)
    began = time.process_time()
    with pytest.raises(NoRequest, match="MiB"):
        parse_request(body)
    assert time.process_time() - began < 0.5
    assert len(parse_request(body[:LARGEST_REQUEST]).projects) <= 200


def test_a_reply_is_byte_for_byte_what_both_clients_take() -> None:
    wanted = reply(
        repeat_s=30,
        authenticator="token-2",
        opaque="<vm>7</vm>",
        accounts=(account(resource_share=70.0),),
        preferences={"suspend_cpu_usage": 0, "work_buf_min_days": 0.02},
    )
    assert render_reply(wanted).decode() == (
        '<?xml version="1.0" encoding="ISO-8859-1" ?>\n<acct_mgr_reply>\n<name>Tides</name>\n'
        "<authenticator>token-2</authenticator>\n"
        f"<signing_key>\n{KEY.public.text}</signing_key>\n<repeat_sec>30</repeat_sec>\n<dynamic>1</dynamic>\n"
        "<no_project_notices>1</no_project_notices>\n"
        f"<account>\n<url>{URL}</url>\n<url_signature>\n{SIGNATURE}</url_signature>\n"
        f"<authenticator>{WEAK}</authenticator>\n<resource_share>70</resource_share>\n"
        "<dont_request_more_work>0</dont_request_more_work>\n<detach_when_done>0</detach_when_done>\n"
        "<suspend>0</suspend>\n<abort_not_started>0</abort_not_started>\n<update>0</update>\n<detach>0</detach>\n"
        "</account>\n<opaque>\n<vm>7</vm>\n</opaque>\n<global_preferences>\n"
        "  <suspend_cpu_usage>0</suspend_cpu_usage>\n  <work_buf_min_days>0.020000</work_buf_min_days>\n"
        "</global_preferences>\n</acct_mgr_reply>\n"
    )


@settings(max_examples=100, deadline=None)
@given(
    repeat_s=st.integers(1, 86_400),
    name=WORD.filter(bool),
    token=st.none() | WORD.filter(bool),
    opaque=st.text("abc012-_.", max_size=246),
    share=st.none() | st.integers(1, 10**6).map(float),
    orders=st.fixed_dictionaries(
        {order: st.booleans() for order in ("suspend", "update", "detach_when_done", "abort_not_started")}
    ),
)
def test_a_reply_survives_the_wire(
    repeat_s: int, name: str, token: str | None, opaque: str, share: float | None, orders: dict[str, bool]
) -> None:
    said = reply(
        repeat_s=repeat_s,
        name=name,
        authenticator=token,
        opaque=opaque,
        accounts=(account(resource_share=share, **orders),),
        preferences={"max_ncpus_pct": 50},
    )
    assert parse_reply(render_reply(said)) == said


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"opaque": "x" * 247}, "opaque"),
        ({"opaque": "</opaque><x>"}, "opaque"),
        ({"opaque": "a & b"}, "opaque"),
        ({"opaque": " a"}, "opaque"),
        ({"authenticator": "a\nb"}, "authenticator"),
        ({"authenticator": "é"}, "authenticator"),
        ({"authenticator": "x" * 256}, "authenticator"),
        ({"authenticator": "&" * 52}, "authenticator"),
        ({"repeat_s": 0}, "repeat_s"),
        ({"repeat_s": 86_401}, "repeat_s"),
        ({"name": " "}, "name"),
        ({"name": "\u0301\n"}, "name"),
        ({"accounts": (account(), account())}, "twice"),
        ({"preferences": {"a b": 1}}, "preferences"),
        ({"preferences": {"disk_interval": float("nan")}}, "disk_interval"),
    ],
)
def test_what_a_client_would_misread_cannot_be_said(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        reply(**changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"url": "https://project.example/lab"}, "url"),
        ({"url": "https://Project.example/lab/"}, "url"),
        ({"signature": SIGNATURE.replace("\n", "\r\n")}, "signature"),
        ({"signature": SIGNATURE.upper()}, "signature"),
        ({"signature": None}, "signature"),
        ({"authenticator": ""}, "authenticator"),
        ({"authenticator": "a" * 32}, "weak"),
        ({"resource_share": -0.1}, "resource_share"),
        ({"resource_share": float("inf")}, "resource_share"),
    ],
)
def test_an_account_that_no_client_takes_cannot_be_made(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        account(**changes)
    assert account(signature=None, authenticator="", detach_when_done=True).detach_when_done


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400).filter(str.strip))
def test_any_name_and_message_come_out_as_a_line_that_fits(text: str) -> None:
    said = render_reply(reply(message=text, user_name=text))

    assert said.isascii()
    assert all(len(line) <= 255 + len("<user_name></user_name>") for line in said.splitlines())
    assert parse_reply(said).signing_key == KEY.public


def test_refusals_and_the_config_are_what_clients_ask_for() -> None:
    with pytest.raises(ValueError, match="-206"):
        parse_reply(render_error(-206, "No <such> token & so"))
    with pytest.raises(ValueError, match="no reply"):
        parse_reply(b"<html>down</html>")
    config = render_config("Tides & Co").decode()
    assert "<account_manager/>" in config
    assert "<name>Tides &amp; Co</name>" in config
    assert "<min_passwd_length>6</min_passwd_length>" in config


def test_no_secret_is_in_a_repr() -> None:
    said = repr(reply(authenticator="token-2", accounts=(account(),)))

    assert "token-2" not in said
    assert WEAK not in said
    assert dataclasses.is_dataclass(reply())
