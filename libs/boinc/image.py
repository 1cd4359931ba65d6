"""What an image may hold already, and the document that puts it there: for a machine that becomes a template.

Such a machine belongs to nobody: no token, no project, no secret. It installs, takes away whatever is its own, and
powers itself off.
"""

import base64
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from libs.boinc.machine_files import AGENT_UNIT, BUILD_UNIT, render_build

LARGEST_BYTES = 16 * 1024
_PLAIN = re.compile(r"[\n\x20-\x7e]*")
_PROXY_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")
_PEM = re.compile(r"(-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\s*)+")


class Component(StrEnum):
    """What an image holds beyond its distribution, so that no machine has to fetch it."""

    BOINC = "boinc"
    """The package boinc-client; it has never run."""
    AGENT = "agent"
    """The program that looks after a machine from within, and its unit."""
    CA = "ca"
    """The certificates of the enterprise's own authority."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """The way out of the private cloud."""

    host: str
    port: int
    not_for: tuple[str, ...] = ()
    """Hosts that are reached without it."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the private cloud demands of its machines, and what their image spares them."""

    ca_pem: str | None = None
    proxy: Proxy | None = None
    present: frozenset[Component] = frozenset()
    """What the image holds already."""


class _Dumper(yaml.SafeDumper):
    """Several plain lines become a block that a person can read; everything else is quoted as it needs."""


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    block = "\n" in text and _PLAIN.fullmatch(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if block else None)


_Dumper.add_representer(str, _represent)


def render_image_data(
    components: frozenset[Component], *, agent_source: str = "", around: Surroundings | None = None
) -> str:
    """A `#cloud-config` document of at most 16 KiB for a machine that is to become an image with these components.

    The proxy serves while it is made and stays in the image. Raises ValueError with a sentence that names the argument.
    """
    around = around or Surroundings()
    if not components:
        raise ValueError("components: give at least one of " + ", ".join(Component))
    if (Component.CA in components) != (around.ca_pem is not None):
        raise ValueError("ca_pem: is given with the component ca, and only with it")
    if around.ca_pem is not None and not _PEM.fullmatch(around.ca_pem):
        raise ValueError("ca_pem: must be certificates in PEM, nothing else")
    if Component.AGENT in components and not agent_source:
        raise ValueError("agent_source: is needed for the component agent")
    files = [
        file_of("/usr/local/sbin/tides-build", render_build(installs=Component.BOINC in components), "0755"),
        file_of("/etc/systemd/system/tides-build.service", BUILD_UNIT),
        *apt_files(around.proxy),
        *(agent_program(agent_source) if Component.AGENT in components else ()),
    ]
    return write_document({}, files, around.ca_pem, ["tides-build.service"], "components, ca_pem")


def write_document(
    head: dict[str, Any],
    files: Sequence[dict[str, Any]],
    ca_pem: str | None,
    units: Sequence[str],
    blame: str,
) -> str:
    """The document that writes these files and starts these units. Raises ValueError with `blame` if too large."""
    document = dict(head)
    if ca_pem:
        document["ca_certs"] = {"trusted": [ca_pem]}
    document["write_files"] = list(files)
    document["runcmd"] = [
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", *units],
        ["systemctl", "start", "--no-block", *units],
    ]
    text = "#cloud-config\n" + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=4096)
    if len(text.encode()) > LARGEST_BYTES:
        size = LARGEST_BYTES // 1024
        raise ValueError(f"{blame}: the user-data is larger than {size} KiB; give less of them")
    return text


def agent_program(source: str) -> list[dict[str, Any]]:
    """The agent and its unit."""
    packed = base64.b64encode(gzip.compress(source.encode(), 9, mtime=0)).decode()
    return [
        file_of("/etc/systemd/system/tides-agent.service", AGENT_UNIT),
        file_of("/usr/local/sbin/tides-agent", packed, "0755") | {"encoding": "gz+b64"},
    ]


def apt_files(proxy: Proxy | None) -> list[dict[str, Any]]:
    """How packages are fetched through the proxy. Raises ValueError for one that cannot be written."""
    if proxy is None:
        return []
    names = (proxy.host, *proxy.not_for)
    if not all(_PROXY_HOST.fullmatch(name) for name in names) or not 0 < proxy.port < 65536:
        raise ValueError("proxy: must be a host's name and a port, and hosts that are reached without it")
    at = f"http://{proxy.host}:{proxy.port}"
    text = f'Acquire::http::Proxy "{at}";\nAcquire::https::Proxy "{at}";\n'
    return [file_of("/etc/apt/apt.conf.d/90tides", text)]


def file_of(path: str, content: str, permissions: str = "0644") -> dict[str, Any]:
    """A file of root's, for `write_files`."""
    return {"path": path, "owner": "root:root", "permissions": permissions, "content": content}
