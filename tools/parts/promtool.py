"""promtool out of Debian's package of Prometheus; the server itself is never installed, for it would start."""

import os
import shutil
from pathlib import Path

from tools.parts import PartMissing, debian

INSIDE = "usr/bin/promtool"


def find_promtool() -> Path:
    """The program: named by TIDES_TEST_PROMTOOL, on PATH, else unpacked. Raises PartMissing with one sentence."""
    given = os.environ.get("TIDES_TEST_PROMTOOL") or shutil.which("promtool")
    path = Path(given) if given else debian.unpack("prometheus", ["prometheus"]) / INSIDE
    if not os.access(path, os.X_OK):
        raise PartMissing(f"{path} is no program: name one with TIDES_TEST_PROMTOOL, or remove its folder.")
    return path
