"""The REST client: tokens, problems, pages, streams that break."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from pydantic import SecretStr

from services.cli.client import Client, Failed, Refused, Target, Told, Unreachable, open_client
from tests.unit.cli.house import TOKEN, House, problem


@pytest.fixture
async def client(house: House) -> AsyncIterator[Client]:
    async with open_client(Target(house.url, SecretStr(TOKEN))) as opened:
        yield opened


async def test_one_exchange_serves_many_calls(house: House, client: Client) -> None:
    await client.pages("/v1/resources")
    await client.pages("/v1/policies")

    assert house.exchanges == 1


async def test_an_access_token_that_ended_is_exchanged_anew(house: House, client: Client) -> None:
    await client.pages("/v1/resources")
    house.good = "another"

    await client.pages("/v1/resources")

    assert house.exchanges == 2


async def test_a_token_that_is_void_is_said_with_where_to_give_another(house: House) -> None:
    async with open_client(Target(house.url, SecretStr("tides_wrong"))) as client:
        with pytest.raises(Refused, match=r"not valid\. Make a new one\. \(TIDES_TOKEN") as refused:
            await client.pages("/v1/resources")
    assert "tides_wrong" not in str(refused.value)


async def test_every_page_is_read(house: House, client: Client) -> None:
    house.kept["resources"] = [{"id": str(number), "name": "r"} for number in range(5)]

    assert [item["id"] for item in await client.pages("/v1/resources")] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (problem(422, "Too short", "name", "Give more."), "name: Too short. Give more."),
        (problem(422, "name: too short.", "name"), "name: too short."),
        (problem(409, "Exists\x1b[31m already."), "Exists [31m already."),
        (web.Response(status=502, text="<html>secret</html>"), "refused with HTTP status 502"),
        (web.json_response(["odd"], status=500), "refused with HTTP status 500"),
    ],
)
async def test_a_refusal_is_one_line(house: House, client: Client, answer: web.Response, line: str) -> None:
    house.answers["POST", "/v1/resources"] = (0, answer)

    with pytest.raises(Refused) as refused:
        await client.call("POST", "/v1/resources", {})

    assert str(refused.value) == line


async def test_who_is_not_there_is_named(house: House) -> None:
    async with open_client(Target("http://127.0.0.1:9", SecretStr(TOKEN))) as client:
        with pytest.raises(Unreachable, match=r"cannot reach http://127\.0\.0\.1:9: is `tides run` running"):
            await client.pages("/v1/resources")


async def test_another_program_at_the_address_is_told_from_tides(house: House, client: Client) -> None:
    house.answers["GET", "/v1/resources"] = (0, web.Response(text="<html>hello</html>"))

    with pytest.raises(Failed, match="check TIDES_URL"):
        await client.pages("/v1/resources")


async def test_services_on_ports_of_their_own_are_asked_there(house: House) -> None:
    target = Target("http://127.0.0.1:9", SecretStr(TOKEN), {"identity": house.url, "registry": house.url})

    async with open_client(target) as client:
        await client.pages("/v1/resources")
        with pytest.raises(Unreachable):
            await client.pages("/v1/policies")


async def read(client: Client, last_id: str | None) -> list[Told]:
    return [told async for told in client.stream("/v1/events", last_id, follow=True)]


async def test_a_stream_says_where_the_reader_stands(house: House, client: Client) -> None:
    house.events = [{"key": "action.machine_lost.v1", "n": 1}, {"key": "action.machine_lost.v1", "n": 2}]

    assert [(told.id, told.data and told.data["n"]) for told in await read(client, None)] == [
        ("", None),
        ("0", None),
        ("1", 1),
        ("2", 2),
    ]
    assert [told.id for told in await read(client, "1")] == ["", "2"]
