"""RabbitMQ for tests: a private throw-away node that can be stopped, killed and started again."""

import asyncio
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import aiohttp

from tools.parts import PartMissing, debian, slots

INSTALLED = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
# All that Debian's rabbitmq-server needs of Erlang, for those who may not install.
ERLANG = "base asn1 crypto eldap ftp inets mnesia os-mon parsetools public-key runtime-tools snmp ssl"
PACKAGES = [
    "rabbitmq-server",
    *(f"erlang-{part}" for part in f"{ERLANG} syntax-tools tftp tools xmerl".split()),
]
START_SECONDS = 90.0
STOP_SECONDS = 30.0
FIRST_STARTS = 3
"""A fresh node tries other ports when somebody took one of its own before it listened."""
CRASH_SAFE_SECONDS = 1.0

CONFIG = """
default_user = guest
default_pass = guest
management.tcp.ip = 127.0.0.1
management.tcp.port = {management_port}
log.console = true
log.console.level = warning
log.file = false
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
raft.wal_max_size_bytes = 16777216
collect_statistics_interval = 1000
"""


@dataclass(frozen=True)
class Programs:
    """Where the broker's programs are, and what their environment must say."""

    server: Path
    epmd: Path
    env: dict[str, str]


class RabbitNode:
    """One private broker on 127.0.0.1. It keeps its ports and its messages from `start` to `start`."""

    def __init__(self) -> None:
        self._slot: slots.Slot | None = None
        self._programs: Programs | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.management_port = 0
        self._env: dict[str, str] = {}

    @property
    def url(self) -> str:
        """The URL of the virtual host `/`."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def management_url(self) -> str:
        """The management API, with credentials."""
        return f"http://guest:guest@127.0.0.1:{self.management_port}"

    async def start(self) -> None:
        """Start the broker and wait until it takes connections: about four seconds."""
        if self._slot is not None:
            await self._start_in(self._slot)
            return
        self._programs = await asyncio.to_thread(find_programs)
        for start in range(1, FIRST_STARTS + 1):
            self._slot = slots.claim("rabbitmq", account="rabbitmq")
            await self._prepare(self._slot, self._programs)
            try:
                await self._start_in(self._slot)
                return
            except PartMissing:
                if start == FIRST_STARTS or self._server is None or self._server.poll() is None:
                    raise
                await self.close()

    async def _start_in(self, slot: slots.Slot) -> None:
        if self._programs is None or (self._server is not None and self._server.poll() is None):
            raise PartMissing("The private RabbitMQ node is running already.")
        self._server = slot.spawn("server", [str(self._programs.server)], self._env)
        await self._until_ready(slot, self._server)

    async def stop(self) -> None:
        """Stop in order, as a restart by an operator does: about eight seconds."""
        if self._server is None or self._server.poll() is not None:
            return
        self._server.send_signal(signal.SIGTERM)
        try:
            await _until_ended(self._server, STOP_SECONDS)
        except TimeoutError:
            slots.kill_session(self._server)

    async def kill(self) -> None:
        """End it as a crash would, a second from now.

        RabbitMQ writes down half a second late that a quorum queue exists: killed sooner, it comes back without.
        """
        if self._server is not None:
            await asyncio.sleep(CRASH_SAFE_SECONDS)
            await asyncio.to_thread(slots.kill_session, self._server)

    async def close(self) -> None:
        """End everything and forget all messages."""
        if self._slot is not None:
            self._slot.release()
            self._slot = None

    async def add_vhost(self, name: str) -> str:
        """A new virtual host; the answer is its URL."""
        return await add_vhost(self.url, self.management_url, name)

    async def _prepare(self, slot: slots.Slot, programs: Programs) -> None:
        self.port, self.management_port = slots.free_port(), slots.free_port()
        epmd_port, dist_port = slots.free_port(), slots.free_port()
        home = slot.folder_of("home")
        self._env = programs.env | {
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": f"tides-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(dist_port),
            "RABBITMQ_MNESIA_BASE": str(slot.folder_of("mnesia")),
            "RABBITMQ_LOG_BASE": str(slot.folder_of("log")),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(slot.write("plugins", "[rabbitmq_management].\n")),
            "RABBITMQ_CONFIG_FILE": str(
                slot.write("rabbitmq.conf", CONFIG.format(management_port=self.management_port))
            ),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(slot.write("advanced.config", "[].\n")),
            "RABBITMQ_PID_FILE": str(slot.folder / "home" / "server.pid"),
            # Two cores are shared with the tests: schedulers must not spin while they wait.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }
        # Without its name server the node does not boot ("nodistribution").
        slot.spawn("epmd", [str(programs.epmd), "-port", str(epmd_port), "-address", "127.0.0.1"], self._env)

    async def _until_ready(self, slot: slots.Slot, server: "subprocess.Popen[bytes]") -> None:
        try:
            async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as http:
                while not await self._answers(http):
                    if server.poll() is not None:
                        raise PartMissing(f"RabbitMQ did not start: {slot.output_of('server')[-2000:]}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise PartMissing(
                f"RabbitMQ took more than {START_SECONDS:.0f} s to start: {slot.output_of('server')[-2000:]}"
            ) from None

    async def _answers(self, http: aiohttp.ClientSession) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            async with http.get(f"{self.management_url}/api/vhosts") as answer:
                return answer.status == 200
        except (OSError, aiohttp.ClientError):
            return False


async def add_vhost(url: str, management_url: str, name: str) -> str:
    """Make a virtual host with full rights for the URL's user; the answer is its AMQP URL."""
    parts = urlsplit(url)
    vhost = f"{management_url}/api/vhosts/{quote(name, safe='')}"
    rights = {"configure": ".*", "write": ".*", "read": ".*"}
    user = quote(parts.username or "guest", safe="")
    async with aiohttp.ClientSession(raise_for_status=True) as http:
        await http.put(vhost)
        await http.put(f"{management_url}/api/permissions/{quote(name, safe='')}/{user}", json=rights)
    return parts._replace(path=f"/{quote(name, safe='')}").geturl()


async def remove_vhost(management_url: str, name: str) -> None:
    """Remove a virtual host and all that is in it."""
    async with aiohttp.ClientSession(raise_for_status=True) as http:
        await http.delete(f"{management_url}/api/vhosts/{quote(name, safe='')}")


async def find_running() -> tuple[str, str] | None:
    """The AMQP and management URLs of a broker that is there already: named by the environment, or local."""
    url = os.environ.get("TIDES_TEST_AMQP_URL")
    default = "amqp://guest:guest@127.0.0.1:5672/"
    parts = urlsplit(url or default)
    management = os.environ.get(
        "TIDES_TEST_AMQP_MANAGEMENT_URL",
        f"http://{parts.username}:{parts.password}@{parts.hostname}:15672",
    )
    if await _manages(management):
        return url or default, management
    if url:
        raise PartMissing(
            "The broker of TIDES_TEST_AMQP_URL has no management API: set TIDES_TEST_AMQP_MANAGEMENT_URL."
        )
    return None


def find_programs() -> Programs:
    """The installed broker; else Debian's package, installed by root or unpacked by anybody else."""
    path = f"/usr/local/bin:/usr/bin:/bin:{os.environ.get('PATH', '')}"
    if INSTALLED.exists() or debian.install(["rabbitmq-server"]):
        epmd = shutil.which("epmd", path=path)
        if not INSTALLED.exists() or epmd is None:
            raise PartMissing("Debian's rabbitmq-server is installed, but not where it should be.")
        return Programs(INSTALLED, Path(epmd), {"PATH": path})
    root = debian.unpack("rabbitmq", PACKAGES)
    erlang = root / "usr/lib/erlang"
    # Debian's `erl` knows no other place than its own.
    script = erlang / "bin" / "erl"
    text = script.read_text()
    if "ROOTDIR=/usr/lib/erlang\n" in text:
        script.write_text(text.replace("ROOTDIR=/usr/lib/erlang\n", f"ROOTDIR={erlang}\n"))
    env = {"PATH": f"{erlang / 'bin'}:{path}"}
    epmd_paths = [*erlang.glob("erts-*/bin/epmd"), *root.glob("usr/bin/epmd")]
    return Programs(root / "usr/lib/rabbitmq/bin/rabbitmq-server", epmd_paths[0], env)


async def _manages(management_url: str) -> bool:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as http,
            http.get(f"{management_url}/api/overview") as answer,
        ):
            return answer.status == 200
    except (OSError, aiohttp.ClientError, TimeoutError):
        return False


async def _until_ended(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while process.poll() is None:  # noqa: ASYNC110 - another process's end announces itself to nobody
            await asyncio.sleep(0.05)
