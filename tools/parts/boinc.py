"""BOINC clients for tests: Debian's own, each in a folder of its own, with the files that a machine would have."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.parts import PartMissing, debian, slots

# All that Debian's boinc-client needs beyond what every Debian has, for those who may not install.
PACKAGES = ["boinc-client", "libboinc7", "libx11-6", "libxss1", "libxext6", "libxcb1", "libxau6", "libxdmcp6"]
PACKAGES += ["libbsd0", "libcurl4"]
START_SECONDS = 20.0
STOP_SECONDS = 70.0
"""A client gives its tasks up to a minute to end."""
PASSWORD = "a test's own"


@dataclass(frozen=True)
class Program:
    """The client's program, and where its libraries are when it was only unpacked."""

    path: Path
    libraries: str = ""


class BoincClient:
    """One private client on 127.0.0.1. It keeps its folder and its port from `start` to `start`."""

    def __init__(self) -> None:
        self._slot: slots.Slot | None = None
        self._program: Program | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def data(self) -> Path:
        """Its data directory; Debian's is /var/lib/boinc-client."""
        return self._claimed().folder / "data"

    @property
    def log(self) -> str:
        """What it said since its last start."""
        return self._claimed().output_of("client")

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    async def prepare(self) -> None:
        """Claim a folder and a port; nothing runs yet. Raises PartMissing where no client can be had."""
        self._program = await asyncio.to_thread(find_program)
        self._slot = slots.claim("boinc", account="boinc")
        self.port = slots.free_port()
        self._slot.folder_of("data")

    def write(self, name: str, text: str) -> None:
        """A file of its data directory."""
        self._claimed().write(f"data/{name}", text)

    async def start(self, *flags: str) -> None:
        """Start it and wait until its port is open: less than a second."""
        slot = self._claimed()
        if self._program is None or self.running:
            raise PartMissing("The BOINC client is not prepared, or runs already.")
        argv = [str(self._program.path), "--dir", str(self.data), "--gui_rpc_port", str(self.port)]
        argv += ["--allow_multiple_clients", "--no_gpus", "--skip_cpu_benchmarks", "--no_priority_change"]
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(self.data), "LANG": "C.UTF-8"}
        if self._program.libraries:
            environment["LD_LIBRARY_PATH"] = self._program.libraries
        self._process = slot.spawn("client", [*argv, *flags], environment)
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await self._answers():
                    if not self.running:
                        raise PartMissing(f"The BOINC client did not start: {self.log[-2000:]}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise PartMissing(f"The BOINC client took more than {START_SECONDS:.0f} s to start.") from None

    async def stop(self) -> None:
        """End it as systemd does."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGTERM)
            await self.ended()

    async def ended(self) -> None:
        """Wait until it has ended by itself."""
        if self._process is not None:
            await asyncio.to_thread(self._process.wait, STOP_SECONDS)

    async def kill(self) -> None:
        """End it and its tasks as a power cut does."""
        if self._process is not None:
            await asyncio.to_thread(slots.kill_session, self._process)

    async def close(self) -> None:
        """End it and remove its folder."""
        await self.kill()
        if self._slot is not None:
            self._slot.release()
            self._slot = None

    def _claimed(self) -> slots.Slot:
        if self._slot is None:
            raise PartMissing("This BOINC client was not prepared.")
        return self._slot

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


def find_program() -> Program:
    """Debian's client: installed, else installed now, else unpacked. Raises PartMissing with one sentence."""
    named = os.environ.get("TIDES_TEST_BOINC_PROGRAM")
    found = named or shutil.which("boinc", path=f"{os.environ.get('PATH', '')}:/usr/bin")
    if found:
        return Program(Path(found), os.environ.get("TIDES_TEST_BOINC_LIBRARIES", ""))
    if debian.install(PACKAGES[:1]):
        return Program(Path("/usr/bin/boinc"))
    root = debian.unpack("boinc", PACKAGES)
    libraries = sorted({str(path.parent) for path in root.rglob("*.so*")})
    return Program(root / "usr/bin/boinc", ":".join(libraries))


def environment_of(program: Program) -> Mapping[str, str]:
    """What tells the tests of one run where the client is."""
    return {"TIDES_TEST_BOINC_PROGRAM": str(program.path), "TIDES_TEST_BOINC_LIBRARIES": program.libraries}
