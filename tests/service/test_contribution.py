"""Contribution, from outside: what an organisation lends, and what workload hears of it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.auth import Role
from libs.common.contracts.action import (
    MachineAbandoned,
    MachineDeployed,
    MachineDestroyed,
    MachineDraining,
    MachineFact,
    MachineRequested,
)
from libs.common.contracts.supply import ContributionChanged
from libs.common.secrets import Unsealable, authenticator_context
from services.contribution.main import build
from tests.service.lone_service import OURS, THEIRS, Lone, serve

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
WEAK = "17_a2d3122f4a70a8a03d05fef689443657"
OTHER = "17_ffffffffffffffffffffffffffffffff"
STRONG = "04ba23378c00cfa1f309fe3ba59057d5"


@pytest.fixture
async def contribution(database_url: str) -> AsyncIterator[Lone]:
    async with serve(build, "contribution", database_url) as lone:
        yield lone


async def add_project(contribution: Lone, url: str = "https://science.example/p/") -> str:
    made = await contribution.ask("POST", "/v1/projects", {"name": "Science", "url": url})
    assert made.status == 201, made.body
    found: str = made.body["id"]
    return found


async def lend(contribution: Lone, project_id: str, **changes: Any) -> dict[str, Any]:
    body = {"project_id": project_id, "weight": 2, "authenticator": WEAK} | changes
    made = await contribution.ask("POST", "/v1/contributions", body)
    assert made.status == 201, made.body
    found: dict[str, Any] = made.body
    return found


def machine(
    kind: type[MachineFact], machine_id: UUID, resource_id: UUID, organisation: UUID = OURS
) -> MachineFact:
    return kind(
        at=NOW, machine_id=machine_id, name="tides-1", workload_id=uuid4(), organisation_id=organisation,
        resource_id=resource_id, cluster_id=uuid4(), vcpus=4, reason="test",
    )  # fmt: skip


async def test_two_addresses_of_one_account_file_are_not_lent_to_at_once(contribution: Lone) -> None:
    await lend(contribution, await add_project(contribution))
    other = await add_project(contribution, "http://science.example/p/")
    body = {"project_id": other, "weight": 1, "authenticator": WEAK}
    refused = await contribution.ask("POST", "/v1/contributions", body)
    assert (refused.status, refused.field) == (409, "project_id")
    assert "https://science.example/p/" in refused.body["detail"]


async def test_workload_hears_every_change_of_a_contribution_until_it_is_gone(contribution: Lone) -> None:
    project_id = await add_project(contribution)
    resource_id = uuid4()
    made = await lend(contribution, project_id, resource_ids=[str(resource_id)])
    path = f"/v1/contributions/{made['id']}"

    await contribution.ask("PATCH", path, {"weight": 0.5})
    await contribution.ask("PATCH", path, {"active": False, "resource_ids": None, "authenticator": OTHER})
    assert (await contribution.ask("DELETE", path)).status == 204
    assert (await contribution.ask("DELETE", path)).status == 404

    heard = [event for event in await contribution.hear(4) if isinstance(event, ContributionChanged)]
    heard.sort(key=lambda event: event.revision)
    assert [(event.revision, event.weight, event.active, event.gone) for event in heard] == [
        (1, 2.0, True, False), (2, 0.5, True, False), (3, 0.5, False, False), (4, 0.5, False, True),
    ]  # fmt: skip
    assert [event.resource_ids for event in heard] == [(resource_id,), (resource_id,), None, None]
    assert {event.project_url for event in heard} == {"https://science.example/p/"}
    vault = contribution.vault
    context = authenticator_context(UUID(made["id"]))
    assert [vault.open(event.sealed_authenticator, context) for event in heard] == [WEAK, WEAK, OTHER, OTHER]
    with pytest.raises(Unsealable):
        vault.open(heard[0].sealed_authenticator, authenticator_context(uuid4()))
    again = await lend(contribution, project_id)
    assert again["id"] != made["id"]


async def test_the_key_is_shown_nowhere(contribution: Lone, capfd: pytest.CaptureFixture[str]) -> None:
    made = await lend(contribution, await add_project(contribution))
    path = f"/v1/contributions/{made['id']}"

    answers = [
        await contribution.ask("GET", path),
        await contribution.ask("GET", "/v1/contributions"),
        await contribution.ask("PATCH", path, {"weight": -1, "authenticator": WEAK}),
        await contribution.ask("PATCH", path, {"authenticator": STRONG}),
        await contribution.ask("PATCH", path, {"authenticator": {"key": WEAK}}),
    ]

    assert [answer.status for answer in answers] == [200, 200, 422, 422, 422]
    shown = " ".join(str(answer.body) for answer in [*answers]) + str(made) + "".join(capfd.readouterr())
    assert WEAK not in shown
    assert STRONG not in shown
    assert "authenticator" not in answers[0].body


async def test_only_a_weak_key_is_taken(contribution: Lone) -> None:
    project_id = await add_project(contribution)
    for key in (STRONG, STRONG.upper(), "17", "17_xyz", WEAK + " x", "", "x" * 300, "0_" + STRONG):
        body = {"project_id": project_id, "weight": 1, "authenticator": key}

        answer = await contribution.ask("POST", "/v1/contributions", body)

        assert (answer.status, answer.field) == (422, "authenticator")
        if key.lower() == STRONG:
            assert "strong" in answer.body["detail"]
            assert "must not reach guests" in answer.body["detail"]
        assert len(key) < 4 or key not in str(answer.body)


async def test_wrong_terms_are_refused_at_their_field(contribution: Lone) -> None:
    project_id = await add_project(contribution)
    wrong: list[dict[str, Any]] = [
        {"weight": 0},
        {"weight": -1},
        {"weight": 1e300},
        {"weight": "heavy"},
        {"resource_ids": []},
        {"project_id": str(uuid4())},
        {"extra": 1},
    ]
    for changes in wrong:
        body = {"project_id": project_id, "weight": 1, "authenticator": WEAK} | changes

        answer = await contribution.ask("POST", "/v1/contributions", body)

        assert (answer.status, [answer.field]) == (422, list(changes))


async def test_a_project_is_known_by_its_address_however_it_is_written(contribution: Lone) -> None:
    project_id = await add_project(contribution, "HTTPS://Science.example//p")
    again = {"name": "Again", "url": "https://science.example/p/"}
    assert (await contribution.ask("POST", "/v1/projects", again)).status == 409
    for url in ("ftp://x.example/", "https://u:p@x.example/", "https://x.example/\x7f", "javascript:1", ""):
        answer = await contribution.ask("POST", "/v1/projects", {"name": "Bad", "url": url})
        assert (answer.status, answer.field) == (422, "url")

    listed = (await contribution.ask("GET", "/v1/projects", role=Role.VIEWER)).body["items"]
    assert [(item["id"], item["url"]) for item in listed] == [(project_id, "https://science.example/p/")]
    await lend(contribution, project_id)
    assert (await contribution.ask("DELETE", f"/v1/projects/{project_id}")).status == 409
    unused = await add_project(contribution, "https://unused.example/")
    assert (await contribution.ask("DELETE", f"/v1/projects/{unused}")).status == 204
    assert (await contribution.ask("GET", f"/v1/projects/{unused}")).status == 404


async def test_machines_are_counted_in_whatever_order_their_facts_come(contribution: Lone) -> None:
    here, elsewhere = uuid4(), uuid4()
    everywhere = await lend(contribution, await add_project(contribution))
    only_here = await lend(
        contribution, await add_project(contribution, "https://b.example/"), resource_ids=[str(here)]
    )
    one, two, three, four, five = (uuid4() for _ in range(5))
    facts = [
        machine(MachineDestroyed, one, here), machine(MachineDeployed, one, here),
        machine(MachineDeployed, two, here), machine(MachineRequested, two, here),
        machine(MachineDraining, three, elsewhere), machine(MachineRequested, three, elsewhere),
        machine(MachineDeployed, four, here, THEIRS),
        machine(MachineDeployed, five, here), machine(MachineAbandoned, five, here),
    ]  # fmt: skip

    await contribution.tell(*facts, *facts)

    async def machines_of(made: dict[str, Any]) -> Any:
        return (await contribution.ask("GET", f"/v1/contributions/{made['id']}")).body["machines"]

    assert await machines_of(everywhere) == {"requested": 0, "running": 1, "draining": 1}
    assert await machines_of(only_here) == {"requested": 0, "running": 1, "draining": 0}


async def test_one_contribution_a_project_and_a_dozen_in_all(contribution: Lone) -> None:
    project_id = await add_project(contribution)
    await lend(contribution, project_id)
    twice = {"project_id": project_id, "weight": 1, "authenticator": WEAK}
    assert (await contribution.ask("POST", "/v1/contributions", twice)).status == 409
    assert (await contribution.ask("POST", "/v1/contributions", twice, organisation=THEIRS)).status == 201
    for number in range(11):
        await lend(contribution, await add_project(contribution, f"https://p{number}.example/"))

    last = twice | {"project_id": await add_project(contribution, "https://last.example/")}
    answer = await contribution.ask("POST", "/v1/contributions", last)

    assert (answer.status, "12" in answer.body["detail"]) == (409, True)


async def test_roles_and_organisations_keep_apart(contribution: Lone) -> None:
    made = await lend(contribution, await add_project(contribution))
    path = f"/v1/contributions/{made['id']}"

    assert (await contribution.ask("GET", path, role=None)).status == 401
    assert (await contribution.ask("PATCH", path, {"weight": 1}, role=Role.VIEWER)).status == 403
    assert (await contribution.ask("PATCH", path, {"weight": 1}, organisation=THEIRS)).status == 404
    assert (await contribution.ask("GET", "/v1/contributions", organisation=THEIRS)).body["items"] == []
    stale = await contribution.ask("PATCH", path, {"weight": 1}, headers={"If-Match": '"7"'})
    assert stale.status == 412
    assert (await contribution.ask("GET", path, role=Role.ADMIN, organisation=THEIRS)).headers[
        "etag"
    ] == '"1"'
