"""Idempotency keys, over HTTP: what is sent again is made once and answered alike, at every door that creates."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from libs.common.auth import Principal, Role
from tests.service.documented import Route
from tests.service.every_door import LOGIN, Doors, is_problem, open_doors
from tests.service.lone_service import Answer

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("repeats")]
KEY = "Idempotency-Key"


@dataclass
class Sender:
    """One user, who may send a request again."""

    doors: Doors
    user_id: UUID

    async def send(self, route: Route | str, body: Any, key: str | None) -> Answer:
        """The request with this key; None: without."""
        whole = self.doors.whole
        who = Principal(self.user_id, "Ada", Role.ADMIN, whole.organisation, uuid4())
        headers = {"Authorization": f"Bearer {whole.signer.sign(who)}"} | ({KEY: key} if key else {})
        return await self.doors.send(self.route(route), body, headers=headers)

    def route(self, name: Route | str) -> Route:
        """By method and path."""
        return next(one for one in self.doors.routes if name in (one, one.name))

    async def rows(self) -> dict[str, Any]:
        """What people have made."""
        return {name: found[0]["count"] for name, found in (await self.doors.rows()).items()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors(postgres_url: str) -> AsyncIterator[Doors]:
    async with open_doors(postgres_url) as opened:
        yield opened


@pytest.fixture
def ada(doors: Doors) -> Sender:
    return Sender(doors, uuid4())


async def test_every_door_that_creates_makes_once_what_is_sent_twice(doors: Doors, ada: Sender) -> None:
    await _end_contribution(ada)
    walked = [route for route in doors.routes if route.creates and "security" in route.operation]
    assert len(walked) > 8
    for route in walked:
        body, other, key = doors.body_of(route), doors.body_of(route), uuid4().hex
        first = await ada.send(route, body, key)
        assert first.status == 201, (route.name, first.body)
        before = await ada.rows()

        again = await ada.send(route, body, key)

        assert (again.status, again.body) == (201, first.body), route.name
        for name in ("location", "etag"):
            assert again.headers.get(name) == first.headers.get(name), route.name
        assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (
            None,
            "true",
        )
        if other != body:
            refused = await ada.send(route, other, key)
            assert (refused.status, refused.body["field"]) == (422, KEY), (route.name, refused.body)
            assert is_problem(refused)
        assert await ada.rows() == before, route.name


async def _end_contribution(ada: Sender) -> None:
    path = f"/v1/contributions/{ada.doors.ids['contribution_id']}"
    assert (await ada.doors.whole.ask("DELETE", path)).status in (204, 404)


async def test_of_many_at_once_one_makes_it_and_all_are_answered_alike(doors: Doors, ada: Sender) -> None:
    for name in ("POST /v1/projects", "POST /v1/users", "POST /v1/policies"):
        body = doors.body_of(ada.route(name))
        before = sum((await ada.rows()).values())

        answers = await asyncio.gather(*(ada.send(name, body, "the-same") for _ in range(8)))

        assert {answer.status for answer in answers} == {201}, [answer.body for answer in answers]
        assert len({answer.body["id"] for answer in answers}) == 1
        made = sum((await ada.rows()).values()) - before
        assert made == {"POST /v1/users": 3, "POST /v1/policies": 3}.get(name, 2), "rows of it, and the key's"


async def test_a_key_is_one_persons_and_one_requests(doors: Doors, ada: Sender) -> None:
    body = doors.body_of(ada.route("POST /v1/projects"))
    assert (await ada.send("POST /v1/projects", body, "k")).status == 201

    other_person = await Sender(doors, uuid4()).send("POST /v1/projects", body, "k")
    other_address = await ada.send("POST /v1/organisations", {"name": "physics"}, "k")
    without = await ada.send("POST /v1/projects", body, None)

    assert (other_person.status, without.status) == (409, 409), "the project is there already"
    assert other_address.status == 201, "each service has keys of its own"
    template = {"resource_id": str(uuid4())}
    assert (await ada.send("POST /v1/organisations", template, "k")).status == 422


async def test_a_refusal_is_not_kept(doors: Doors, ada: Sender) -> None:
    url = f"https://{uuid4().hex}.example/"
    kept = (await ada.send("POST /v1/projects", {"name": "P", "url": url}, None)).body
    body = {"name": "Q", "url": url}
    assert (await ada.send("POST /v1/projects", body, "k")).status == 409
    assert (await doors.whole.ask("DELETE", f"/v1/projects/{kept['id']}")).status == 204

    assert (await ada.send("POST /v1/projects", body, "k")).status == 201


async def test_a_key_is_forgotten_after_a_day(doors: Doors, ada: Sender) -> None:
    whole = doors.whole
    for key in ("old", "older"):
        assert (await ada.send("POST /v1/organisations", {"name": f"a{uuid4().hex}"}, key)).status == 201
    shift = "update identity.answered_request set at = at - interval '{}' where user_id = $1 returning key"
    await whole.fetch(shift.format("23 hours 55 minutes"), ada.user_id)
    refused = await ada.send("POST /v1/organisations", {"name": "another"}, "old")
    await whole.fetch(shift.format("6 minutes"), ada.user_id)

    taken = await ada.send("POST /v1/organisations", {"name": "another"}, "old")

    assert (refused.status, taken.status) == (422, 201)
    left = await whole.fetch("select key from identity.answered_request where user_id = $1", ada.user_id)
    assert [row["key"] for row in left] == ["old"]


async def test_what_is_kept_is_sealed(doors: Doors, ada: Sender) -> None:
    given = {"label": "laptop", "user_id": doors.ids["user_id"]}
    token = (await ada.send("POST /v1/tokens", given, "k")).body["token"]
    rows = await doors.whole.fetch(
        "select sealed from identity.answered_request where user_id = $1", ada.user_id
    )
    assert len(rows) == 1
    assert "tides_" not in rows[0]["sealed"]
    assert (await ada.send("POST /v1/tokens", given, "k")).body["token"] == token
    await doors.whole.fetch("update identity.answered_request set sealed = 'k0.AAAA' where key = 'k'")
    lost = await ada.send("POST /v1/tokens", given, "k")
    assert (lost.status, lost.body["field"]) == (409, KEY)


@pytest.mark.slow
async def test_who_waits_too_long_for_a_twin_is_told_to_come_again(doors: Doors, ada: Sender) -> None:
    """As if the first hung: its row is there, and its transaction does not end."""
    first = await asyncpg.connect(doors.whole.settings.database_dsn)
    hanging = first.transaction()
    await hanging.start()
    row = "insert into identity.answered_request (user_id, key, sealed) values ($1, 'k', '')"
    await first.execute(row, ada.user_id)

    answer = await ada.send("POST /v1/organisations", {"name": "chemistry"}, "k")

    await hanging.rollback()
    await first.close()
    assert (answer.status, answer.body["field"]) == (409, KEY)
    assert (await ada.send("POST /v1/organisations", {"name": "chemistry"}, "k")).status == 201


@pytest.mark.parametrize("key", ["x" * 201, "two words", "Ä"])
async def test_a_key_is_a_short_word(doors: Doors, ada: Sender, key: str) -> None:
    answer = await ada.send("POST /v1/organisations", LOGIN, key)
    assert (answer.status, answer.body["field"].lower()) == (422, KEY.lower())
