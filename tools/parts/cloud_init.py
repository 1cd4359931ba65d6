"""cloud-init's schema of its documents, out of Debian's package; the program itself is never installed."""

import json
import os
from pathlib import Path
from typing import Any

from tools.parts import PartMissing, debian

INSIDE = "usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json"


def find_schema() -> dict[str, Any]:
    """The schema of a `#cloud-config` document: installed, else unpacked. Raises PartMissing with one sentence."""
    installed = Path("/") / INSIDE
    path = Path(os.environ.get("TIDES_TEST_CLOUD_INIT_SCHEMA") or installed)
    if not path.exists():
        path = debian.unpack("cloud-init", ["cloud-init"]) / INSIDE
    try:
        schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise PartMissing(f"{path} is no schema; remove that folder and try again.") from None
    return schema
