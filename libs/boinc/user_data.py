"""The cloud-init document that makes a fresh Debian or Ubuntu machine a BOINC client of its own, unattended.

cloud-init itself needs no network for it: it writes files and starts units. A unit that repeats until it succeeds
installs what is missing and puts BOINC's files in place, so a machine that boots without network is only later.
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from libs.boinc import wording
from libs.boinc.account import Attachment, account_file_name, canonical_url, render_account_file
from libs.boinc.image import (
    LARGEST_BYTES,
    Component,
    Proxy,
    Surroundings,
    agent_program,
    apt_files,
    file_of,
    write_document,
)
from libs.boinc.machine_files import CC_CONFIG, PREFERENCES, SETUP_UNIT, UNIT, render_proxy, render_setup
from libs.boinc.signing import PublicKey

__all__ = [
    "LARGEST_BYTES",
    "AccountManager",
    "Agent",
    "Attachment",
    "Component",
    "Proxy",
    "Surroundings",
    "render_user_data",
    "slot_hostname",
]

STAGE = "/etc/tides/boinc"
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TOKEN = re.compile(r"[\x21-\x7e]{1,200}")
_DOOR = re.compile(r"https://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*)?/")


@dataclass(frozen=True, slots=True)
class AccountManager:
    """Who tells the client its projects, instead of account files."""

    url: str
    """https, with a dot in its host and a slash at its end: others are ignored by clients without a word."""
    signing_key: PublicKey
    """Pinned before the first contact."""
    opaque: str = ""
    """What the client sends back at every contact."""
    name: str = "Tides"


@dataclass(frozen=True, slots=True)
class Agent:
    """The program that looks after the machine from within, and where it reports."""

    door_url: str
    source: str = field(repr=False)


def slot_hostname(place: bytes, ordinal: int) -> str:
    """The name of the n-th machine of a place (an installation's cluster): unique, and the same for its successor.

    A project takes a new machine of the same name for the old one: its tasks are freed and its history goes on.
    """
    return f"tides-{hashlib.sha256(place).hexdigest()[:8]}-{ordinal}"


def render_user_data(
    attachments: Sequence[Attachment],
    hostname: str,
    guest_token: str,
    *,
    manager: AccountManager | None = None,
    agent: Agent | None = None,
    around: Surroundings | None = None,
) -> str:
    """A `#cloud-config` document of at most 16 KiB for a dedicated machine that works for these projects.

    Projects come by `attachments` or by the account `manager`, never by both. `guest_token` is the machine's own
    short-lived token, for the manager and the agent. `hostname` must be unique among living machines: projects take
    two hosts of one name for the same. Raises ValueError with a sentence that names the argument, never its value.
    """
    around = around or Surroundings()
    _check(attachments, hostname, guest_token, manager)
    files = [
        *_boinc_files(attachments, around),
        *(_manager_files(manager, guest_token) if manager else ()),
        *_system_files(around),
        *_agent_files(agent, guest_token, around),
    ]
    ca_pem = None if Component.CA in around.present else around.ca_pem
    units = ["tides-setup.service", *(["tides-agent.service"] if agent else [])]
    head = {"hostname": hostname, "preserve_hostname": False}
    return write_document(head, files, ca_pem, units, "attachments, ca_pem")


def _check(
    attachments: Sequence[Attachment], hostname: str, guest_token: str, manager: AccountManager | None
) -> None:
    if not _HOSTNAME.fullmatch(hostname):
        raise ValueError("hostname: must be one label of lower-case letters, digits and hyphens")
    if not _TOKEN.fullmatch(guest_token):
        raise ValueError("guest_token: must be printable ASCII without blanks, at most 200 characters")
    names = [account_file_name(attachment.project_url) for attachment in attachments]
    if len(set(names)) != len(names):
        raise ValueError("attachments: two projects have the same account file")
    weights = [attachment.weight for attachment in attachments]
    if any(not (math.isfinite(weight) and weight >= 0) for weight in weights):
        raise ValueError("attachments: no weight may be below 0")
    if weights and max(weights) == 0:
        raise ValueError("attachments: a weight must be above 0")
    if manager is not None and attachments:
        raise ValueError("attachments: must be empty where an account manager names the projects")


def _boinc_files(attachments: Sequence[Attachment], around: Surroundings) -> list[dict[str, Any]]:
    proxy = ""
    if around.proxy is not None:
        proxy = render_proxy(around.proxy.host, around.proxy.port, around.proxy.not_for)
    return [
        file_of(f"{STAGE}/cc_config.xml", CC_CONFIG.replace("{proxy}", proxy)),
        file_of(f"{STAGE}/global_prefs_override.xml", PREFERENCES),
        *(
            file_of(f"{STAGE}/{account_file_name(each.project_url)}", render_account_file(each), "0600")
            for each in attachments
        ),
    ]


def _manager_files(manager: AccountManager, guest_token: str) -> list[dict[str, Any]]:
    if manager.url != canonical_url(manager.url) or "." not in (urlsplit(manager.url).hostname or ""):
        raise ValueError("manager: the address must be canonical and have a dot in its host's name")
    if not manager.url.startswith(("https://", "http://127.0.0.1:")):
        raise ValueError("manager: the address must begin with https://")
    opaque = wording.check_opaque(manager.opaque)
    url = (
        f"<acct_mgr>\n<name>{wording.shown(manager.name)}</name>\n<url>{wording.line('manager', manager.url)}</url>\n"
        f"<signing_key>\n{manager.signing_key.text}</signing_key>\n</acct_mgr>\n"
    )
    login = (
        f"<acct_mgr_login>\n<authenticator>{wording.line('guest_token', guest_token)}</authenticator>\n"
        + (f"<opaque>\n{opaque}\n</opaque>\n" if opaque else "")
        + "</acct_mgr_login>\n"
    )
    return [
        file_of(f"{STAGE}/acct_mgr_url.xml", url),
        file_of(f"{STAGE}/acct_mgr_login.xml", login, "0600"),
    ]


def _system_files(around: Surroundings) -> list[dict[str, Any]]:
    setup = render_setup(installs=Component.BOINC not in around.present)
    return [
        file_of("/etc/systemd/system/boinc-client.service.d/tides.conf", UNIT),
        file_of("/etc/systemd/system/tides-setup.service", SETUP_UNIT),
        file_of("/usr/local/sbin/tides-setup", setup, "0755"),
        *apt_files(around.proxy),
    ]


def _agent_files(agent: Agent | None, guest_token: str, around: Surroundings) -> list[dict[str, Any]]:
    if agent is None:
        return [file_of("/etc/tides/guest_token", guest_token, "0600")]
    if not _DOOR.fullmatch(agent.door_url):
        raise ValueError("agent: the door's address must begin with https:// and end in a slash")
    settings = {"door": agent.door_url, "token": guest_token}
    if around.proxy is not None:
        settings["proxy"] = f"http://{around.proxy.host}:{around.proxy.port}"
    program = () if Component.AGENT in around.present else agent_program(agent.source)
    return [file_of("/etc/tides/agent.json", json.dumps(settings), "0600"), *program]
