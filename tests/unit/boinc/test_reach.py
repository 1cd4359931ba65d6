"""What a hostile project, or whoever names one, can make Tides ask and swallow: nothing near, nothing without end."""

import asyncio
import gzip
import socket
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from libs.boinc import lenient
from libs.boinc.web import (
    ANYWHERE,
    FAR,
    OutOfReach,
    ProjectClient,
    ProjectUnavailable,
    StatsKind,
    client,
    open_project,
    open_stats,
    reach_of,
    unpacking,
)
from libs.boinc.web.reach import is_near

CONFIG = "<project_config><name>Lab</name></project_config>"
Handler = Callable[[web.Request], web.StreamResponse]


@asynccontextmanager
async def host(answer: Handler) -> AsyncIterator[str]:
    """A server on this machine that answers everything so."""

    async def serve(request: web.Request) -> web.StreamResponse:
        return answer(request)

    app = web.Application()
    app.router.add_get("/{tail:.*}", serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/p/"
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "GAP_S", 0.0)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1", "255.255.255.255",
        "100.100.100.200", "168.63.129.16", "::1", "::", "fe80::1", "ff02::1", "fd00:ec2::254",
    ],
)  # fmt: skip
def test_this_machine_its_segment_and_where_clouds_tell_secrets_are_near(address: str) -> None:
    assert is_near(ip_address(address))


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "192.168.1.1", "172.16.0.1", "8.8.8.8", "2001:4860::1", "fd12::1"]
)
def test_an_enterprises_own_network_and_the_world_are_not(address: str) -> None:
    FAR.insist_on("project.example", address)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:5432/", "http://[::1]/", "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[::ffff:169.254.169.254]/",
        "http://[2002:7f00:1::]/", "http://localhost:8080/", "http://0.0.0.0/", "http://2130706433/", "http://127.1/",
    ],
)  # fmt: skip
async def test_no_spelling_of_a_near_address_is_asked(url: str) -> None:
    with pytest.raises(ProjectUnavailable):
        async with open_project(url) as project:
            await project.config()


async def test_a_name_is_judged_by_the_address_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async with host(lambda _: web.Response(text=CONFIG)) as url:
        port = URL(url).port
        named = f"http://rebound.example:{port}/p/"
        answers = iter(["10.255.255.1", "127.0.0.1"])

        async def resolve(*_given: object, **_more: object) -> list[object]:
            address = next(answers, "127.0.0.1")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        assert next(answers) == "10.255.255.1"  # as whoever looked before would have been told
        with pytest.raises(OutOfReach, match="TIDES_BOINC_LOCAL_PROJECTS"):
            async with open_project(named) as project:
                await project.config()
        async with open_project(named, reach_of("Rebound.example")) as project:
            assert (await project.config()).name == "Lab"


async def test_what_is_named_is_asked_though_it_is_near() -> None:
    async with host(lambda _: web.Response(text=CONFIG)) as url:
        for reach in (ANYWHERE, reach_of("127.0.0.1"), reach_of(" 10.0.0.0/8, 127.0.0.0/8 ,")):
            async with open_project(url, reach) as project:
                assert (await project.config()).name == "Lab"
        with pytest.raises(OutOfReach):
            async with open_project(url, reach_of("10.0.0.0/8,localhost")) as project:
                await project.config()


@pytest.mark.parametrize("text", ["http://x/", "10.0.0.1/8", "a b", "x_y", "host:80"])
def test_what_is_no_exception_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no host's name"):
        reach_of(text)


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd", "gopher://127.0.0.1/x", "http://169.254.169.254/", "//169.254.169.254/", "ftp://127.0.0.1/",
        "http://127.0.0.1:5432/", "https://127.0.0.1:1/", "http://user:pw@127.0.0.1:1/", "data:text/xml,x", "http://[",
    ],
)  # fmt: skip
async def test_a_project_sends_us_nowhere_but_within_itself(location: str) -> None:
    asked: list[str] = []

    def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": location})

    async with host(answer) as url, open_project(url, ANYWHERE) as project:
        with pytest.raises(ProjectUnavailable):
            await project.config()
        assert len(asked) == 1


BOMB = zlib.compressobj(9, wbits=31)
GZIPPED = BOMB.compress(bytes(60_000_000)) + BOMB.flush()


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
async def test_a_bomb_is_not_unpacked(encoding: str) -> None:
    bomb = web.Response(body=GZIPPED, headers={"Content-Encoding": encoding})
    async with host(lambda _: bomb) as url, open_project(url, ANYWHERE) as project:
        tracemalloc.start()
        try:
            with pytest.raises(ProjectUnavailable, match=r"larger|no end"):
                await project.config()
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x"])
async def test_what_is_packed_in_another_way_than_was_asked_for_is_not_read(encoding: str) -> None:
    packed = web.Response(body=b"x", headers={"Content-Encoding": encoding})
    async with host(lambda _: packed) as url, open_project(url, ANYWHERE) as project:
        with pytest.raises(ProjectUnavailable, match="nobody asked for"):
            await project.config()


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "zlib"])
async def test_an_honest_answer_may_be_packed(pack: Callable[[bytes], bytes]) -> None:
    packed = web.Response(body=pack(CONFIG.encode()), headers={"Content-Encoding": "gzip"})
    async with host(lambda _: packed) as url, open_project(url, ANYWHERE) as project:
        assert (await project.config()).name == "Lab"


async def test_statistics_that_are_a_bomb_of_true_records_end_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "_FREE", 256 * 1024)
    bomb = gzip.compress(b"<hosts>" + b"<host><id>1</id></host>" * 300_000 + b"</hosts>", 9)

    async def read_all(url: str) -> int:
        asked = (url, StatsKind.HOSTS, "", frozenset({9}))
        async with aiohttp.ClientSession() as http, open_stats(http, *asked) as file:
            assert file is not None
            return len([record async for record in file.records])

    async with host(lambda _: web.Response(body=bomb)) as url:
        with pytest.raises(ProjectUnavailable, match="no end"):
            await read_all(url)


async def test_an_answer_without_end_and_one_that_drips_are_given_up() -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        request = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        drips = b"drip" in request
        try:
            while True:
                writer.write(b"x" if drips else b"x" * 65_536)
                sent += 0 if drips else 65_536
                await writer.drain()
                await asyncio.sleep(0.01 if drips else 0)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, aiohttp.ClientSession() as http:
        with pytest.raises(ProjectUnavailable, match="larger than 1024 KiB"):
            await ProjectClient(http, f"http://127.0.0.1:{port}/").config()
        assert sent < 50_000_000
        with pytest.raises(ProjectUnavailable, match="TimeoutError"):
            await ProjectClient(http, f"http://127.0.0.1:{port}/drip/", timeout_s=0.2).config()


def test_no_name_of_a_charset_makes_reading_slow() -> None:
    body = b"a" * 300_000 + b"-" + b"9" * 300_000
    began = time.process_time()
    for charset in ("punycode", "idna", "utf-7", "hex", "unicode_escape", "nonsense"):
        assert lenient.decode(body, charset) == body.decode()
    assert time.process_time() - began < 0.5
    assert lenient.decode("é".encode("latin-1"), "ISO-8859-1") == "é"
    assert lenient.decode(b"\x80", "windows-1252") == "€"
