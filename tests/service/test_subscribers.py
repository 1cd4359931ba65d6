"""A project's server on the public exchange: the example, run as it stands, by a user who may hear of one project."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import aio_pika
import aiohttp
import pytest
from aio_pika.exceptions import AMQPException

from libs.boinc.manager import ReportedProject
from libs.common.contracts.action import MachineDestroyed, MachineDraining, MachineResumed
from libs.common.contracts.demand import HoursExpected
from services.contribution.reconcile.watching import foretell
from tests.service.manager_house import House, opened

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "project_subscriber.py"


@asynccontextmanager
async def let_in(amqp_url: str, management_url: str, project_id: str) -> AsyncIterator[str]:
    """A user with the permissions that docs/subscribers.md names; the answer is its URL."""
    parts = urlsplit(amqp_url)
    vhost, name = parts.path.removeprefix("/"), f"u{uuid4().hex}"
    queue, api = f"^project-{project_id}$", f"{management_url}/api"
    rights = {"configure": queue, "write": queue, "read": f"^(project-{project_id}|tides)$"}
    topic = {"exchange": "tides", "write": "^$", "read": rf"^project\.{project_id}\."}
    async with aiohttp.ClientSession(raise_for_status=True) as http:
        await http.put(f"{api}/users/{name}", json={"password": "p", "tags": ""})
        await http.put(f"{api}/permissions/{vhost}/{name}", json=rights)
        await http.put(f"{api}/topic-permissions/{vhost}/{name}", json=topic)
        try:
            yield parts._replace(netloc=f"{name}:p@{parts.hostname}:{parts.port}").geturl()
        finally:
            await http.delete(f"{api}/users/{quote(name)}")


@asynccontextmanager
async def example(url: str, project_id: str) -> AsyncIterator[asyncio.StreamReader]:
    """The example as a process, once it listens."""
    env = {**os.environ, "TIDES_AMQP_URL": url}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE), project_id, stdout=asyncio.subprocess.PIPE, env=env
    )
    assert process.stdout is not None
    try:
        assert await said(process.stdout) == {"listening": f"project-{project_id}"}
        yield process.stdout
    finally:
        process.kill()
        await process.wait()


async def said(lines: asyncio.StreamReader) -> dict[str, Any]:
    async with asyncio.timeout(30):
        found: dict[str, Any] = json.loads(await lines.readline())
        return found


async def refused(url: str, exchange: str, key: str, queue: str) -> bool:
    """Whether the broker lets this user bind no queue so."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        try:
            bound = await channel.declare_queue(queue, durable=True, passive=queue.startswith("project-"))
            await bound.bind(exchange, key)
        except AMQPException as error:
            return "ACCESS_REFUSED" in str(error)
    return False


async def test_a_project_hears_of_its_own_hosts_and_of_nothing_else(
    database_url: str, amqp_url: str, broker_urls: tuple[str, str]
) -> None:
    async with opened(database_url, bus_url=amqp_url) as house:
        other, _ = await house.add_project("https://other.example/", 1.0)
        token = await house.settled_token()
        mine = ReportedProject(
            url=house.project_url, resource_share=3.0, attached_by_manager=True, host_id=6, cpu_s=0.0
        )
        beside = ReportedProject(
            url="https://other.example/", resource_share=1.0, attached_by_manager=True, host_id=70, cpu_s=0.0
        )
        async with (
            let_in(amqp_url, broker_urls[1], house.project_id) as url,
            example(url, house.project_id) as lines,
        ):
            await house.come(token, mine, beside)
            await house.come(token, mine, beside)
            house.clock.pass_by(60)
            await house.say(MachineDraining, grace_s=600.0)
            house.clock.pass_by(60)
            await house.say(MachineResumed)
            await house.say(MachineDestroyed)
            heard = [await said(lines) for _ in range(4)]
            own = f"project-{house.project_id}"
            for exchange, key, queue in (
                ("tides", "#", own),
                ("tides", "project.*.#", own),
                ("tides", f"project.{other}.#", own),
                ("tides", "action.#", own),
                ("tides.internal", f"project.{house.project_id}.#", own),
                ("tides", f"project.{house.project_id}.#", "another"),
            ):
                assert await refused(url, exchange, key, queue), (exchange, key, queue)
            assert not await refused(url, "tides", f"project.{house.project_id}.#", own)

    assert [(event["event"].split(".")[1], event["host_id"]) for event in heard] == [
        ("host_attached", 6), ("host_draining", 6), ("host_attached", 6), ("host_detached", 6),
    ]  # fmt: skip
    assert (heard[0]["vcpus"], heard[0]["fpops"], heard[1]["grace_s"]) == (2, 4e9, 600.0)
    told = {name for event in heard for name in event}
    assert told == {"event", "id", "at", "project_id", "host_id", "vcpus", "fpops", "grace_s"}


async def test_a_project_is_told_each_hour_what_to_expect_until_its_last_host_is_gone(
    database_url: str,
) -> None:
    async with opened(database_url) as house:
        token = await house.settled_token()
        mine = ReportedProject(
            url=house.project_url, resource_share=3.0, attached_by_manager=True, host_id=6, cpu_s=5400.0
        )
        house.clock.pass_by(3600)
        await house.come(token, mine)
        told = [await forecasts(house, later_s) for later_s in (0, 600, 3600)]
        await house.say(MachineDestroyed)
        told += [await forecasts(house, later_s) for later_s in (3600, 3600)]

    assert [[(one.hosts, one.cores, one.core_hours) for one in each] for each in told] == [
        [(1, 2.0, 36.0)],
        [],
        [(1, 2.0, pytest.approx(1.5 * 24 * 3600 / 7800, abs=0.01))],
        [(0, 0.0, 0.0)],
        [],
    ]


async def forecasts(house: House, later_s: float) -> list[HoursExpected]:
    """What is told new, so much later."""
    house.clock.pass_by(later_s)
    before = len(house.lone.said)
    await foretell(house.lone.run.services[0].database, house.clock)
    await house.lone.settle()
    return [event for event in house.lone.said[before:] if isinstance(event, HoursExpected)]
