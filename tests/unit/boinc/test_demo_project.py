"""The demo project: what it refuses as real projects do, what it grants, and that a restart forgets nothing."""

import asyncio
import gzip
import re
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.boinc.credit import claimed_credit
from libs.boinc.demo_project import DemoProject, serving
from libs.boinc.demo_project.books import LATE_S, MOST_OVER, Books, Job
from libs.boinc.demo_project.burner import answer
from libs.boinc.demo_project.scheduling import schedule
from libs.boinc.demo_project.uploading import upload
from libs.boinc.demo_project.visitor import Visitor
from libs.boinc.web import ANYWHERE, ProjectRefused, open_project, password_hash

EMAIL, SECRET = "Lab@example.com", password_hash("secret-password", "Lab@example.com")


def request(key: str, host_id: int = 0, seqno: int = 1, more: str = "", wants_s: float = 1.0) -> bytes:
    text = f"<authenticator>{key}</authenticator><hostid>{host_id}</hostid><rpc_seqno>{seqno}</rpc_seqno>"
    text += (
        f"<platform_name>x86_64-pc-linux-gnu</platform_name><work_req_seconds>{wants_s}</work_req_seconds>"
    )
    text += "<host_info><p_ncpus>1</p_ncpus><host_cpid>c1</host_cpid></host_info>"
    return f"<scheduler_request>{text}{more}</scheduler_request>".encode()


def report(name: str, exit_status: int = 0) -> str:
    return f"<result><name>{name}</name><exit_status>{exit_status}</exit_status></result>"


def sent(reply: str, output: str) -> bytes:
    """What a client uploads for the first task of a reply, with the permission that came with it."""
    [info, *_] = re.findall(
        r"<file_info>\n(?:(?!</file_info>).)*<upload_when_present/>.*?</file_info>", reply, re.S
    )
    head = f"<data_server_request><file_upload>{info}<nbytes>{len(output)}</nbytes><offset>0</offset><data>\n"
    return (head + output).encode()


def task_in(reply: str) -> str:
    return str(re.findall(r"<result>\n<name>(.*?)</name>", reply)[0])


async def test_an_answer_that_is_right_is_credited_and_a_restart_forgets_nothing(tmp_path: Path) -> None:
    project = DemoProject(cpu_s=2.0, wrong_login_s=0, path=tmp_path / "project.json", terms="Be kind")
    async with serving(project, "127.0.0.1", 0), open_project(project.url, ANYWHERE) as asked:
        strong = await asked.create_account(EMAIL, SECRET, "Lab", consent=True)
        weak = (await asked.account(strong)).weak_key
        for wrong in (
            asked.lookup_account(EMAIL, "0" * 32),
            asked.lookup_account("nobody@example.com", SECRET),
            asked.create_account(EMAIL, "0" * 32, "Lab", consent=True),
            asked.set_host_venue(strong, 7, "work"),
        ):
            with pytest.raises(ProjectRefused):
                await wrong
        await project.prepare()
        reply = schedule(project, request(weak))
        task, good = task_in(reply), answer(2.0, task_in(reply))
        assert "<status>0<" in upload(project, sent(reply, good))
        assert f"<name>{task}</name>" in schedule(project, request(weak, 1, 2, report(task), wants_s=0))
        await asked.set_host_venue(strong, 1, "work")

    again, port = DemoProject(project.url, cpu_s=2.0, path=project.path), urlsplit(project.url).port or 0
    await again.prepare()
    assert again.signer.public == project.signer.public
    async with (
        serving(again, "127.0.0.1", port),
        aiohttp.ClientSession() as http,
        open_project(project.url, ANYWHERE) as asked,
    ):
        [host] = (await asked.user_with_hosts(strong)).hosts
        assert host.total_credit == pytest.approx(claimed_credit(2.0, 1e9), abs=1e-6)
        assert (await asked.user(1)).total_credit == host.total_credit
        assert (await asked.server_status()).running
        async with http.get(f"{project.url}stats/host.gz") as got:
            assert b"<userid>1</userid>" in gzip.decompress(await got.read())
            etag = got.headers["ETag"]
        async with http.get(f"{project.url}stats/host.gz", headers={"If-None-Match": etag}) as got:
            assert got.status == 304
    with pytest.raises(ValueError, match="never changes"):
        DemoProject("http://other.example/demo/", path=project.path)


def test_tasks_that_nobody_ever_reported_are_let_go() -> None:
    books = Books(jobs={f"t{n}": Job(f"t{n}", 1, 1.0, 0.0, 100.0) for n in range(MOST_OVER + 50)})
    books.jobs["new"] = Job("new", 1, 1.0, 0.0, LATE_S)
    books.forget_old_jobs(100.0 + LATE_S)
    assert len(books.jobs) == MOST_OVER + 51, "a late report is still taken"
    books.forget_old_jobs(101.0 + LATE_S)
    assert "t49" not in books.jobs
    assert len(books.jobs) == MOST_OVER + 1


async def test_what_real_projects_refuse_is_refused() -> None:
    project = DemoProject("http://p.example/demo/", cpu_s=2.0)
    await project.prepare()
    weak = project.weak_key
    for body in (b"", b"<html>", b"<scheduler_request/>", b"<scheduler_request><authen"):
        assert "Incomplete request" in schedule(project, body)
    for key in ("", "1_" + "0" * 32, weak[:-1]):
        assert "Invalid or missing account key" in schedule(project, request(key))
    strange = request(weak).replace(b"x86_64-pc-linux-gnu", b"windows_x86_64")
    assert "doesn't support" in schedule(project, strange)
    assert not project.hosts

    unknown = schedule(project, request(weak, host_id=77))
    assert "Can't find host record" in unknown
    assert "<hostid>1</hostid>" in unknown
    task = task_in(unknown)
    assert "hostid" not in schedule(project, request(weak, 1, 1, wants_s=0))
    assert "<hostid>2</hostid>" in schedule(project, request(weak, 1, 0))
    stranger = schedule(project, request(weak, 2, 9, report(task) + report("never sent"), wants_s=0))
    assert stranger.count("<result_ack>") == 2
    assert project.jobs[task].exit_status is None

    good = answer(2.0, task)
    forged = sent(unknown, good).replace(task.encode(), task.replace("1", "2", 1).encode())
    for body in (
        forged,
        sent(unknown, good).replace(b"<xml_signature>\n", b"<xml_signature>\n00"),
        sent(unknown, good)[:-1],
        sent(unknown, "x" * 5000),
        b"<data_server_request><file_upload></file_upload></data_server_request>",
        b"nonsense",
    ):
        assert "<status>-1<" in upload(project, body)
    assert project.jobs[task].output is None
    upload(project, sent(unknown, "a wrong answer"))
    schedule(project, request(weak, 1, 2, report(task), wants_s=0))
    assert project.jobs[task].state == "invalid"
    assert project.hosts[1].credit == 0
    assert "<status>-1<" in upload(project, sent(unknown, good))


async def test_a_host_has_no_more_than_it_can_do_and_credit_waits() -> None:
    project = DemoProject("http://p.example/demo/", cpu_s=2.0, validate_after_s=3600.0)
    await project.prepare()
    reply = schedule(project, request(project.weak_key, wants_s=1e12))
    assert reply.count("<workunit>") == 2
    assert "<workunit>" not in schedule(project, request(project.weak_key, 1, 2))
    task = task_in(reply)
    upload(project, sent(reply, answer(2.0, task)))
    more = schedule(project, request(project.weak_key, 1, 3, report(task)))
    assert more.count("<workunit>") == 1
    assert project.hosts[1].credit == 0
    project.validate_after_s = 0.0
    schedule(project, request(project.weak_key, 1, 4, wants_s=0))
    assert project.hosts[1].credit > 0


async def test_a_stand_in_client_computes_what_it_is_told_and_hears_that_its_key_is_refused() -> None:
    project = DemoProject(cpu_s=3600.0, link_s=60.0)
    async with serving(project, "127.0.0.1", 0), aiohttp.ClientSession() as http:
        visitor = Visitor(project.url, project.weak_key, "c1", "tides-1", 4, 1e9, link_s=60.0)
        await visitor.come(http, 2 * 3600.0)
        visitor.work(1.5 * 3600.0)
        await visitor.come(http, 0.0)
        assert (visitor.host_id, visitor.reported, visitor.cpu_s) == (1, 1, 5400.0)
        assert [task.done_s for task in visitor.tasks] == [1800.0]
        await visitor.come(http, 0.0)
        assert project.hosts[1].credit == pytest.approx(claimed_credit(3600.0, 1e9))
        assert project.faults == []

        visitor.key = "7_" + "0" * 32
        await visitor.come(http, 60.0)
        assert "account key" in visitor.message
        assert visitor.host_id == 1


@pytest.fixture(scope="module")
def ready() -> DemoProject:
    project = DemoProject("http://p.example/demo/", jobs_per_host=0)
    asyncio.run(project.prepare())
    return project


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 300))
def test_no_request_brings_it_down(ready: DemoProject, noise: bytes, at: int, cut: int) -> None:
    whole = request(ready.weak_key, 1, 5, report("demo_1_1", 3))
    mixed = whole[:at] + noise + whole[at + cut :]
    assert schedule(ready, mixed).endswith("</scheduler_reply>\n")
    assert upload(ready, b"<data_server_request>" + mixed).endswith("</data_server_reply>\n")
