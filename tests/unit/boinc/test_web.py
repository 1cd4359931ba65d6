"""The web RPC client against a server that answers as real ones do, and as none should."""

import asyncio
import gzip
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.boinc.web import (
    BadEmail,
    BadPassword,
    ConsentRequired,
    CreationDisabled,
    NotFound,
    NotUnique,
    ProjectClient,
    ProjectDown,
    ProjectRefused,
    ProjectUnavailable,
    StatsKind,
    answers,
    client,
    open_stats,
    password_hash,
)
from libs.boinc.web.errors import refusal

STRONG = "04ba23378c00cfa1f309fe3ba59057d5"
WEAK = "1_a2d3122f4a70a8a03d05fef689443657"
CPID = "af4a2ffa1bf32ceeec4daac312c228eb"
CONFIG = """<br />
<b>Deprecated</b>: x in <b>/y.php</b> on line <b>1</b><br />
<?xml version="1.0" encoding="ISO-8859-1" ?>
<project_config>
    <name>Lab Test Project</name>
    <master_url>https://127.0.0.1/tproj/</master_url>
    <web_rpc_url_base>https://127.0.0.1/tproj/</web_rpc_url_base>
    <server_version>1.1.0</server_version>
    <account_creation_disabled/>
    <invite_code_required/>
    <min_passwd_length>6</min_passwd_length>
    <sched_stopped>0</sched_stopped>
    <platforms><platform><platform_name>x86_64-pc-linux-gnu</platform_name><user_friendly_name>Linux</user_friendly_name>
    </platform><platform><platform_name>x86_64-pc-linux-gnu</platform_name><plan_class>vbox64</plan_class></platform></platforms>
    <terms_of_use>
<b>x</b> & <name>co</name>
</terms_of_use>
</project_config>"""
INFO = f"""<?xml version="1.0" encoding="ISO-8859-1" ?>
<am_get_info_reply>
    <success/>
    <id>1</id><name>Enterprise+One%21</name><country>International</country>
    <weak_auth>{WEAK}</weak_auth>
    <cpid>{CPID}</cpid><teamid>7</teamid>
</am_get_info_reply>"""
USER = f"""<user><id>1</id><cpid>{CPID}</cpid><name>Enterprise One</name><total_credit>1.872126</total_credit>
<expavg_credit>0.5</expavg_credit><expavg_time>1795170695.5</expavg_time>
<host><id>6</id><rpc_time>1795170700</rpc_time><host_cpid>{CPID}</host_cpid><total_credit>1.2</total_credit>
<expavg_credit>nan</expavg_credit><domain_name>tides-1</domain_name><p_ncpus>2</p_ncpus><p_fpops>4.3e9</p_fpops></host>
<host><id>7</id><host_cpid>' or 1=1</host_cpid></host></user>"""
STATUS = """<server_status><daemon_status>
<daemon><host>h</host><command>feeder</command><status>running</status></daemon>
<daemon><host>h</host><command>assimilator</command><status>not running</status></daemon></daemon_status>
<database_file_states><results_ready_to_send>12</results_ready_to_send><results_in_progress>3</results_in_progress>
<tasks_by_app><app><id>1</id><name>upper</name><unsent>12</unsent></app></tasks_by_app></database_file_states></server_status>"""


class Project:
    """Answers what it was given, keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[], web.Response] | str] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.url = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        name = request.path.rpartition("/")[2]
        self.asked.append((name, dict(request.query)))
        answer = self.answers.get(name, "<html><body>Down for maintenance</body></html>")
        return web.Response(text=answer) if isinstance(answer, str) else answer()


@pytest.fixture
async def project(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Project]:
    monkeypatch.setattr(client, "GAP_S", 0.0)
    one = Project()
    app = web.Application()
    app.router.add_get("/{tail:.*}", one.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/tproj/"
    yield one
    await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def rpc(project: Project, http: aiohttp.ClientSession) -> ProjectClient:
    return ProjectClient(http, project.url, timeout_s=2.0)


def error(number: int, text: str = "x") -> str:
    return f"<?xml version='1.0'?>\n<error>\n<error_num>{number}</error_num>\n<error_msg>{text}</error_msg>\n</error>"


async def test_a_config_is_read_through_what_php_says(project: Project, rpc: ProjectClient) -> None:
    project.answers["get_project_config.php"] = CONFIG

    config = await rpc.config()

    assert (config.name, config.master_url) == ("Lab Test Project", "https://127.0.0.1/tproj/")
    assert config.accounts_by == {"account_creation_disabled", "invite_code_required"}
    assert config.platforms == {"x86_64-pc-linux-gnu", "x86_64-pc-linux-gnu[vbox64]"}
    assert config.terms == "<b>x</b> & <name>co</name>"
    assert len(config.terms_hash) == 64
    assert (config.down, config.account_manager, config.min_password_length) == (False, False, 6)


async def test_a_stopped_project_still_says_who_it_is(project: Project, rpc: ProjectClient) -> None:
    down = "<error_num>-183</error_num><web_stopped>1</web_stopped></project_config>"
    project.answers["get_project_config.php"] = CONFIG.replace("</project_config>", down)

    assert (await rpc.config()).down


async def test_an_account_is_made_with_consent_and_code_and_its_weak_key_read(
    project: Project, rpc: ProjectClient
) -> None:
    project.answers["create_account.php"] = (
        f"<account_out><authenticator>{STRONG}</authenticator></account_out>"
    )
    project.answers["am_get_info.php"] = INFO
    hashed = password_hash("secretpw", "Ent1@Example.com")

    key = await rpc.create_account("ent1@example.com", hashed, " Ent ", invite_code="i", consent=True)
    account = await rpc.account(key)

    assert project.asked[0][1] == {
        "email_addr": "ent1@example.com",
        "passwd_hash": hashlib.md5(b"secretpwent1@example.com").hexdigest(),
        "user_name": "Ent",
        "consent_flag": "1",
        "source": "Tides",
        "invite_code": "i",
    }
    assert (account.name, account.weak_key, account.user_id, account.team_id) == (
        "Enterprise One!",
        WEAK,
        1,
        7,
    )
    assert WEAK not in repr(account)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (-136, NotFound), (-137, NotUnique), (-138, ProjectDown), (-183, ProjectDown), (-205, BadEmail),
        (-206, BadPassword), (-208, CreationDisabled), (-242, ConsentRequired), 
        (-1, ProjectRefused), (7, ProjectRefused),
    ],
)  # fmt: skip
async def test_an_error_number_is_an_error_of_its_kind(
    project: Project, rpc: ProjectClient, number: int, kind: type[ProjectRefused]
) -> None:
    project.answers["create_account.php"] = error(number, "Some\n\x1b[31m thing")

    with pytest.raises(kind) as refused:
        await rpc.create_account("a@b.example", "h" * 32, "n")

    assert type(refused.value) is kind
    assert refused.value.number == number
    assert str(refused.value) == "Some [31m thing"


async def test_a_login_that_was_refused_is_not_tried_again(project: Project, rpc: ProjectClient) -> None:
    project.answers["lookup_account.php"] = error(-206)
    for _ in range(3):
        with pytest.raises(BadPassword):
            await rpc.lookup_account("a@b.example", "h" * 32)
    assert len(project.asked) == 1

    project.answers["lookup_account.php"] = (
        f"<account_out><authenticator>{STRONG}</authenticator></account_out>"
    )
    assert await rpc.lookup_account("a@b.example", "i" * 32) == STRONG


async def test_whether_an_account_exists(project: Project, rpc: ProjectClient) -> None:
    project.answers["lookup_account.php"] = "<account_out><success/></account_out>"
    assert await rpc.has_account("a@b.example")
    project.answers["lookup_account.php"] = error(-136)
    assert not await rpc.has_account("a@b.example")


async def test_credit_of_a_user_and_each_host(project: Project, rpc: ProjectClient) -> None:
    project.answers["show_user.php"] = USER

    user = await rpc.user_with_hosts(STRONG)

    assert (user.total_credit, user.average_at) == (1.872126, 1795170695.5)
    assert [(host.id, host.host_cpid, host.average_credit) for host in user.hosts] == [
        (6, CPID, 0.0),
        (7, "", 0.0),
    ]
    assert (user.hosts[0].domain_name, user.hosts[0].cpus, user.hosts[0].fpops) == ("tides-1", 2, 4.3e9)


async def test_the_servers_state_and_a_hosts_venue(project: Project, rpc: ProjectClient) -> None:
    project.answers["server_status.php"] = STATUS
    project.answers["am_set_host_info.php"] = "<am_set_host_info_reply><success/></am_set_host_info_reply>"

    status = await rpc.server_status()
    await rpc.set_host_venue(STRONG, 6, "work")

    assert not status.running
    assert (status.ready_to_send, status.in_progress, status.unsent_by_app) == (12, 3, {"upper": 12})
    assert project.asked[-1][1] == {"account_key": STRONG, "hostid": "6", "venue": "work"}


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(text="<html>maintenance</html>"),
        lambda: web.Response(status=503),
        lambda: web.Response(text=""),
        lambda: web.Response(body=b"\xff\xfe\x00"),
        lambda: web.Response(text="<am_get_info_reply><weak_auth>no key</weak_auth></am_get_info_reply>"),
        lambda: web.Response(body=b"<am_get_info_reply>" * 60_000),
        lambda: web.Response(body=gzip.compress(b" " * 50_000_000), headers={"Content-Encoding": "gzip"}),
        lambda: web.Response(status=302, headers={"Location": "http://elsewhere.example/"}),
        lambda: web.Response(status=302, headers={"Location": "am_get_info.php"}),
        lambda: web.Response(status=302),
    ],
)  # fmt: skip
async def test_a_project_on_a_bad_day_is_unavailable_and_no_key_is_told(
    project: Project, rpc: ProjectClient, answer: Any
) -> None:
    project.answers["am_get_info.php"] = answer

    with pytest.raises(ProjectUnavailable) as bad:
        await rpc.account(STRONG)

    assert STRONG not in str(bad.value)


async def test_nobody_there_and_somebody_slow(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "GAP_S", 0.0)
    with pytest.raises(ProjectUnavailable):
        await ProjectClient(http, "http://127.0.0.1:9/").config()

    async def dawdle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(dawdle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    began = time.monotonic()
    with pytest.raises(ProjectUnavailable):
        await ProjectClient(http, f"http://127.0.0.1:{port}/", timeout_s=0.2).config()
    assert time.monotonic() - began < 0.5
    server.close()
    await server.wait_closed()


def export(count: int) -> bytes:
    rows = "".join(
        f"<host>\n<id>{n}</id><userid>{n % 10}</userid><total_credit>{n}.5</total_credit>"
        f"<rpc_time>7</rpc_time><host_cpid>{CPID}</host_cpid>\n</host>\n"
        for n in range(count)
    )
    return gzip.compress(f"<hosts>\n{rows}</hosts>\n".encode())


async def test_statistics_are_read_as_they_come_and_only_when_they_changed(
    project: Project, http: aiohttp.ClientSession
) -> None:
    project.answers["host.gz"] = lambda: web.Response(body=export(5000), headers={"ETag": '"7"'})
    async with open_stats(http, project.url, StatsKind.HOSTS, users=frozenset({3})) as file:
        assert file is not None
        found = [answers.host_of(record) async for record in file.records]
    assert file.etag == '"7"'
    assert [host.id for host in found[:3]] == [3, 13, 23]
    assert (len(found), found[1].total_credit) == (500, 13.5)

    project.answers["host.gz"] = lambda: web.Response(status=304)
    async with open_stats(http, project.url, StatsKind.HOSTS, etag='"7"') as file:
        assert file is None


async def test_what_must_be_forgotten_is_named(project: Project, http: aiohttp.ClientSession) -> None:
    text = b"<hosts><host><host_id>6</host_id><public_cross_project_id>x</public_cross_project_id></host></hosts>"
    project.answers["host_deleted.gz"] = lambda: web.Response(body=gzip.compress(text))
    async with open_stats(http, project.url, StatsKind.DELETED_HOSTS) as file:
        assert file is not None
        assert [record.integer("host_id") async for record in file.records] == [6]


@pytest.mark.parametrize(
    "body", [b"<html>", export(500)[:-200], gzip.compress(b"<hosts><host>" + b"x" * 200_000), b""]
)
async def test_statistics_that_are_none_end_in_unavailable(
    project: Project, http: aiohttp.ClientSession, body: bytes
) -> None:
    project.answers["host.gz"] = lambda: web.Response(body=body)

    async def read_all() -> int:
        async with open_stats(http, project.url, StatsKind.HOSTS) as file:
            assert file is not None
            return len([record async for record in file.records])

    with pytest.raises(ProjectUnavailable):
        await read_all()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([CONFIG, INFO, USER, STATUS, error(-136)]))
def test_a_mutated_answer_is_read_or_refused(seed: int, text: str) -> None:
    chance = random.Random(seed)
    for _ in range(chance.randrange(1, 12)):
        at = chance.randrange(len(text) or 1)
        piece = chance.choice(
            ["<", ">", "&", "</", "\x00", "nan", "-", "9" * 30, "]]>", "<error>", text[at : at + 40]]
        )
        text = text[:at] + piece + text[at + chance.randrange(30) :]
    readers: list[Any] = [
        lambda: answers.read_config(text, "https://a.example/"),
        lambda: answers.read_account(text),
        lambda: answers.read_user(text),
        lambda: answers.read_status(text),
        lambda: answers.read_authenticator(text),
    ]
    for reader in readers:
        with suppress(ProjectRefused, ProjectUnavailable):
            reader()


def test_a_project_that_says_what_it_was_told_gives_no_secret_away() -> None:
    said = str(refusal(-206, f"no {STRONG} {password_hash('pw', 'e@x')} {WEAK}, go"))
    assert said == "no … … 1_…, go"
