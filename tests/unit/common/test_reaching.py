"""Where a server is said to be: host and port, and nothing of what stands before them."""

import asyncio
import string
from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from libs.common.bus.base import Bus, BusUnavailable, Queue
from libs.common.reaching import ServerUnreachable, declare_reached, reach_bus, reach_database, where
from libs.common.settings import Settings

SECRETS = st.text(string.ascii_letters + string.digits + "@:/?#[]%!", min_size=6).map(
    lambda text: f"S3CRET{text}"
)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u:p@db.example:6432/tides", "db.example:6432"),
        ("postgresql://db.example/tides", "db.example:5432"),
        ("postgresql://u:p@[::1]/tides", "::1:5432"),
        ("amqp://u:p@mq/", "mq:5672"),
        ("amqps://u:p@mq/vhost", "mq:5671"),
        ("postgresql://postgres@/postgres?host=/run/pg", "/run/pg:5432"),
        ("postgresql://u:pa/ss@host/db", ""),
        ("postgresql://u:12/34@host/db", ""),
        ("postgresql://u:p@host:port/db", ""),
    ],
)
def test_the_place_of_a_server(url: str, place: str) -> None:
    assert where(url) == place


@given(SECRETS)
def test_no_password_is_ever_part_of_it(secret: str) -> None:
    assert "S3CRET" not in where(f"postgresql://user:{secret}@host:5432/tides").upper()


async def test_a_server_that_does_not_answer_is_named_with_its_setting_and_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("libs.common.bus.rabbit.CONNECT_WITHIN_S", 0.2)
    nowhere = Settings.model_validate(
        {"database_url": "postgresql://u:s3cret@127.0.0.1:1/x", "bus_url": "amqp://u:s3cret@127.0.0.1:1/"}
    )
    with pytest.raises(ServerUnreachable) as database:
        await reach_database(nowhere, within_s=0.2)
    with pytest.raises(ServerUnreachable) as bus:
        await reach_bus(nowhere)

    line = "TIDES_DATABASE_URL: cannot reach PostgreSQL at 127.0.0.1:1: nothing listens there"
    assert str(database.value) == line
    assert str(bus.value).startswith("TIDES_BUS_URL: cannot reach RabbitMQ at 127.0.0.1:1: ")
    assert "s3cret" not in str(bus.value)


@pytest.mark.parametrize(
    "rest", ["u:s3cret@host:port/x", "u:s3/cret@host/x", "u:s3cret@[::1/x", "u:s3#cret@host/x"]
)
async def test_a_url_that_cannot_be_read_is_refused_at_once_and_nothing_of_it_is_told(rest: str) -> None:
    wrong = Settings.model_construct(database_url=None, bus_url=SecretStr(f"amqp://{rest}"))
    began = asyncio.get_running_loop().time()
    with pytest.raises(ServerUnreachable, match="TIDES_BUS_URL: this is no URL of RabbitMQ") as bus:
        await reach_bus(wrong)
    wrong = Settings.model_construct(database_url=SecretStr(f"postgresql://{rest}"), bus_url=None)
    with pytest.raises(
        ServerUnreachable, match="TIDES_DATABASE_URL: this is no URL of PostgreSQL"
    ) as database:
        await reach_database(wrong)
    assert asyncio.get_running_loop().time() - began < 5, "waiting mends no URL"
    assert "s3" not in f"{bus.value}{database.value}"


class _DeafBus:
    async def declare(self, _queues: Sequence[Queue]) -> None:
        raise BusUnavailable("no answer in 30 s (TimeoutError)") from TimeoutError()


async def test_a_bus_that_makes_no_queues_is_named_with_its_setting_and_what_to_do() -> None:
    settings = Settings(
        bus_url=SecretStr("amqp://u:S3CRET@mq.example/"), database_url=SecretStr("postgresql://x/")
    )
    with pytest.raises(ServerUnreachable) as said:
        await declare_reached(settings, cast(Bus, _DeafBus()), [])
    assert str(said.value).startswith("TIDES_BUS_URL: cannot reach RabbitMQ at mq.example:5672: ")
    assert "no answer" in str(said.value)
    assert "disk and memory alarms" in str(said.value)
    assert "S3CRET" not in str(said.value)
