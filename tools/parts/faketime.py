"""A wall clock of a process's own, by Debian's libfaketime: unpacked, never installed."""

import os
from pathlib import Path

from tools.parts import PartMissing, debian

INSIDE = "usr/lib/*-linux-gnu/faketime/libfaketime.so.1"


def find_library() -> Path:
    """The library to preload: named by TIDES_TEST_FAKETIME, else unpacked. Raises PartMissing with one sentence."""
    given = os.environ.get("TIDES_TEST_FAKETIME")
    root = Path("/") if given else debian.unpack("faketime", ["libfaketime"])
    path = Path(given) if given else next(root.glob(INSIDE), root / INSIDE)
    if not path.exists():
        raise PartMissing(f"{path} is no library: name one with TIDES_TEST_FAKETIME, or remove its folder.")
    return path


class OwnClock:
    """The clock of one process, which runs ahead of everybody's by as many seconds as it was last told."""

    def __init__(self, library: Path, file: Path) -> None:
        self._library = library
        self._file = file
        self.step(0)

    def step(self, seconds: float) -> None:
        """Be so far ahead of the true time, or behind it, from the next second on; also after a restart."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+g}\n", encoding="ascii")
        fresh.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """What the process is started with. Waiting goes on by a clock that never steps."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Its mend for old systems makes a thread wait for Python's lock until another gives it up by itself.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }
