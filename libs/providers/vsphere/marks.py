"""Whose machine a VM is: the mark that Tides writes into it, and how it is read back."""

import base64
import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pyVmomi import vim

from libs.providers.base import MachineSpec, Mark

PREFIX = "tides-"
# Keys outside guestinfo: a guest cannot change them.
INSTALLATION_KEY = "tides.installation"
MACHINE_KEY = "tides.machine"
CONFIGURED_KEY = "tides.configured"


@dataclass(frozen=True, slots=True)
class Label:
    """The mark of a VM, and whether its configuration was finished."""

    mark: Mark
    configured: bool


def name_of(mark: Mark) -> str:
    """The only name a machine with this mark may have."""
    return f"{PREFIX}{mark.machine_id}"


def is_name(name: str) -> bool:
    """Whether only a machine of some installation of Tides can have been given this name."""
    try:
        return name == f"{PREFIX}{UUID(name.removeprefix(PREFIX))}"
    except ValueError:
        return False


def read_label(name: str, extra_config: Iterable[Any]) -> Label | None:
    """The label of a VM of this name; None unless every part is there and agrees."""
    # The last of equal keys counts: a server that appends instead of replacing still tells the truth.
    got = {str(option.key): option.value for option in extra_config if str(option.key).startswith("tides.")}
    try:
        mark = Mark(UUID(str(got[INSTALLATION_KEY])), UUID(str(got[MACHINE_KEY])))
    except (KeyError, ValueError):
        return None
    if name != name_of(mark):
        return None
    return Label(mark, str(got.get(CONFIGURED_KEY)) == "1")


def identity_options(mark: Mark) -> list[Any]:
    """The mark as it goes into the clone itself, so that a crash leaves no machine without one."""
    return [_option(INSTALLATION_KEY, str(mark.installation_id)), _option(MACHINE_KEY, str(mark.machine_id))]


def finished_options(spec: MachineSpec) -> list[Any]:
    """Mark, cloud-init documents and the sign that the machine is configured."""
    metadata = json.dumps({"instance-id": str(spec.mark.machine_id), "local-hostname": spec.name})
    return [
        *identity_options(spec.mark),
        _option("guestinfo.metadata", _pack(metadata)),
        _option("guestinfo.metadata.encoding", "gzip+base64"),
        _option("guestinfo.userdata", _pack(spec.user_data)),
        _option("guestinfo.userdata.encoding", "gzip+base64"),
        _option(CONFIGURED_KEY, "1"),
    ]


def template_options() -> list[Any]:
    """What a template loses: its clones would be taken for finished machines, and read its documents."""
    kept = ("guestinfo.metadata", "guestinfo.userdata")
    given = [_option(f"{key}{part}", "") for key in kept for part in ("", ".encoding")]
    return [*given, _option(CONFIGURED_KEY, "template")]


def template_annotation(mark: Mark) -> str:
    """What an administrator reads in the notes of a template that was a machine."""
    return (
        f"Template {mark.machine_id} that Tides derived (installation {mark.installation_id}). Machines are made from "
        "it; `tides template list` shows from what it came. It goes when its version is revoked."
    )


def annotation(mark: Mark) -> str:
    """What an administrator reads in the machine's notes."""
    return (
        f"Machine {mark.machine_id} of Tides (installation {mark.installation_id}). It uses only what nobody else "
        "wants here and is removed by itself; please do not rename, move or copy it."
    )


def _pack(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _option(key: str, value: str) -> Any:
    return vim.option.OptionValue(key=key, value=value)
