"""Asking a project who it is: through what PHP prints, on a bad day, under another name; and agreeing to its terms."""

import hashlib
import io
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from libs.boinc.catalogue import LARGEST_CATALOGUE
from libs.boinc.demo_project import DemoProject
from libs.common.auth import Role
from services.contribution.main import build
from tests.boinclab.web import HTML, serving
from tests.service.lone_service import THEIRS, Answer, Lone, serve

CATALOGUE = b"""<projects>
<project><name>Docking</name><url>https://dock.example/</url><general_area>Biology</general_area>
<specific_area>Drugs</specific_area><description><![CDATA[a & b]]></description><home>A lab</home>
<platforms><name>x86_64-pc-linux-gnu</name></platforms><keywords>9 13</keywords></project>
<project><name>Boxes</name><url>https://box.example/</url><general_area>Physics</general_area>
<platforms><name>x86_64-pc-linux-gnu[vbox64]</name></platforms></project>
<project><name>Nowhere</name><url>ftp://no.example/</url></project></projects>"""


@pytest.fixture
async def tides(database_url: str) -> AsyncIterator[Lone]:
    async with serve(build, "contribution", database_url) as lone:
        yield lone


@pytest.fixture
async def project() -> AsyncIterator[DemoProject]:
    async with serving() as one:
        yield one


async def check(tides: Lone, url: str, role: Role = Role.OPERATOR) -> Answer:
    made = await tides.ask("POST", "/v1/projects", {"name": url[-20:], "url": url})
    known = (await tides.ask("GET", "/v1/projects")).body["items"]
    project_id = made.body["id"] if made.status == 201 else known[0]["id"]
    return await tides.ask("POST", f"/v1/projects/{project_id}/check", role=role)


async def added(tides: Lone, url: str) -> dict[str, Any]:
    answer = await tides.ask("POST", "/v1/projects", {"name": "Lab", "url": url, "verify": True})
    assert answer.status == 201, answer.body
    found: dict[str, Any] = answer.body
    return found


async def test_a_project_says_who_it_is_and_what_it_asks_for(tides: Lone, project: DemoProject) -> None:
    project.invite_code = "x"
    answer = await check(tides, project.url)

    assert answer.status == 200
    assert answer.body["name"] == "Lab"
    assert (answer.body["is_canonical"], answer.body["is_down"], answer.body["runs_here"]) == (
        True,
        False,
        True,
    )
    assert answer.body["hindrances"] == ["invite_code_required"]
    assert answer.body["terms"] == project.terms
    assert answer.body["terms_sha256"] == hashlib.sha256(project.terms.encode()).hexdigest()


async def test_another_name_and_another_platform_are_seen(tides: Lone, project: DemoProject) -> None:
    project.plan_class, project.master_url = "vbox64", "https://lab.example/"
    answer = await check(tides, project.url)

    assert (answer.body["is_canonical"], answer.body["master_url"]) == (False, "https://lab.example/")
    assert not answer.body["runs_here"]


@pytest.mark.parametrize(("page", "status"), [(HTML, 200), ("", 200), ("x", 500), ("<a>" * 700_000, 200)])
async def test_a_project_on_a_bad_day_is_a_503_with_a_reason(
    tides: Lone, project: DemoProject, page: str, status: int
) -> None:
    project.page, project.status = page, status
    answer = await check(tides, project.url)
    viewer = await check(tides, project.url, Role.VIEWER)
    unheard = await tides.ask("POST", "/v1/projects", {"name": "x", "url": project.url, "verify": True})

    assert answer.status == unheard.status == 503
    assert answer.body["detail"].startswith("The project")
    assert viewer.status == 403
    assert (await tides.ask("GET", "/v1/projects")).body["items"][0]["seen"] is None


async def test_a_project_that_is_away_is_a_503_too(tides: Lone) -> None:
    assert (await check(tides, "http://127.0.0.1:9/")).status == 503


async def test_a_project_is_kept_under_the_address_that_it_gives_for_itself(
    tides: Lone, project: DemoProject
) -> None:
    project.master_url = "https://lab.example/canonical/"
    kept = await added(tides, project.url.upper().replace("/LAB/", "/lab/"))

    assert kept["url"] == "https://lab.example/canonical/"
    assert (kept["seen"]["master_url"], kept["seen"]["down"], kept["seen"]["trouble"]) == (
        kept["url"],
        False,
        None,
    )
    again = await tides.ask("POST", "/v1/projects", {"name": "Lab", "url": project.url, "verify": True})
    assert (again.status, again.field) == (409, "url")


async def test_who_agreed_to_which_terms_is_kept_and_other_terms_are_told(
    tides: Lone, project: DemoProject
) -> None:
    kept = await added(tides, project.url)
    path = f"/v1/projects/{kept['id']}"
    digest = kept["seen"]["terms_sha256"]
    assert (kept["consent"], kept["terms_changed"]) == (None, False)

    agreed = (await tides.ask("PUT", f"{path}/consent", {"terms_sha256": digest})).body
    assert (agreed["consent"]["terms_sha256"], agreed["consent"]["user_name"]) == (digest, "someone")
    assert agreed["consent"]["user_id"] == str(UUID(agreed["consent"]["user_id"]))
    again = (await tides.ask("PUT", f"{path}/consent", {"terms_sha256": digest})).body
    assert again["consent"] == agreed["consent"]
    assert (await tides.ask("GET", path, organisation=THEIRS)).body["consent"] is None

    before, project.terms = project.terms, "Pay us"
    with capture_logs() as logs:
        other = (await tides.ask("POST", f"{path}/check")).body["terms_sha256"]
    now = (await tides.ask("GET", path)).body
    assert (now["terms_changed"], now["consent"]["terms_sha256"]) == (True, digest)
    assert now["seen"]["terms_sha256"] == other != digest
    assert "project.terms_changed" in {fact["event"] for fact in logs}

    agreed_to = (await tides.ask("GET", f"{path}/consents/{digest}", role=Role.VIEWER)).body
    assert (agreed_to["terms"], agreed_to["user_name"]) == (before, "someone")
    assert (await tides.ask("GET", f"{path}/consents/{other}")).status == 404
    assert (await tides.ask("GET", f"{path}/consents/{digest}", organisation=THEIRS)).status == 404
    assert (await tides.ask("GET", f"{path}/consents/x")).status == 422
    assert (await tides.ask("GET", f"{path}/consents", organisation=THEIRS)).body["items"] == []

    stale = await tides.ask("PUT", f"{path}/consent", {"terms_sha256": digest})
    assert (stale.status, stale.field) == (409, "terms_sha256")
    assert not (await tides.ask("PUT", f"{path}/consent", {"terms_sha256": other})).body["terms_changed"]
    project.terms = before
    await tides.ask("POST", f"{path}/check")
    assert not (await tides.ask("GET", path)).body["terms_changed"]
    first = (await tides.ask("GET", f"{path}/consents?limit=1")).body
    rest = (await tides.ask("GET", f"{path}/consents?limit=1&cursor={first['next_cursor']}")).body
    assert [one["terms_sha256"] for one in first["items"] + rest["items"]] == [digest, other]
    assert (await tides.ask("GET", f"{path}/consents/{other}")).body["terms"] == "Pay us"
    assert (await tides.ask("DELETE", path)).status == 204
    assert (await tides.ask("GET", f"{path}/consents")).status == 404


async def test_no_operator_makes_tides_ask_its_own_machine_or_its_clouds_secrets(database_url: str) -> None:
    async with serve(build, "contribution", database_url, boinc_local_projects="") as lone, serving() as near:
        for url in (near.url, near.url.replace("127.0.0.1", "localhost"), "http://169.254.169.254/latest/"):
            answer = await lone.ask("POST", "/v1/projects", {"name": "x", "url": url, "verify": True})
            assert (answer.status, near.asked) == (503, [])
            assert "TIDES_BOINC_LOCAL_PROJECTS" in answer.body["detail"]


async def test_nobody_agrees_to_what_was_never_read(tides: Lone) -> None:
    made = await tides.ask("POST", "/v1/projects", {"name": "x", "url": "https://x.example/"})
    path = f"/v1/projects/{made.body['id']}/consent"
    for body, status in (({"terms_sha256": "0" * 64}, 409), ({"terms_sha256": "x"}, 422), ({}, 422)):
        assert (await tides.ask("PUT", path, body)).status == status
    assert (await tides.ask("PUT", path, {"terms_sha256": "0" * 64}, role=Role.VIEWER)).status == 403


async def test_the_catalogue_is_what_was_last_given(tides: Lone) -> None:
    path = "/v1/listed-projects"
    assert (await tides.ask("PUT", path, data=CATALOGUE)).status == 403, "it is the catalogue of others too"
    kept = await tides.ask("PUT", path, data=CATALOGUE, role=Role.ADMIN)
    assert (kept.status, kept.body) == (200, {"projects": 2, "run_here": 1})

    [one] = (await tides.ask("GET", f"{path}?runs_here=true", role=Role.VIEWER)).body["items"]
    assert (one["name"], one["url"], one["area"], one["description"], one["keywords"]) == (
        "Docking",
        "https://dock.example/",
        "Biology",
        "a & b",
        [9, 13],
    )
    first = (await tides.ask("GET", f"{path}?limit=1")).body
    rest = (await tides.ask("GET", f"{path}?limit=1&cursor={first['next_cursor']}")).body
    assert [each["name"] for each in first["items"] + rest["items"]] == ["Boxes", "Docking"]
    assert rest["next_cursor"] is None

    for wrong in (b"", b"<html></html>", b"\xff\x00"):
        refused = await tides.ask("PUT", path, data=wrong, role=Role.ADMIN)
        assert (refused.status, refused.field) == (422, "body")
    large = io.BytesIO(b" " * (LARGEST_CATALOGUE + 1))
    assert (await tides.ask("PUT", path, data=large, role=Role.ADMIN)).status == 413
    assert len((await tides.ask("GET", path)).body["items"]) == 2
    await tides.ask("PUT", path, data=b"<projects></projects>", role=Role.ADMIN)
    assert (await tides.ask("GET", path)).body["items"] == []
