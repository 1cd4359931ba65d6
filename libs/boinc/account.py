"""Attaching to a project by file: project addresses, account keys, `account_*.xml`.

Source: BOINC 8.x client, `cs_account.cpp` and `url.cpp`; file names as the client itself writes them.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

LONGEST_URL = 250
_WEAK = re.compile(r"[1-9][0-9]{0,18}_[0-9a-f]{32}")
_STRONG = re.compile(r"[0-9a-fA-F]{32}")
_URL_TEXT = re.compile(r"[A-Za-z0-9._~:/\[\]@!$&()*+,;=%-]+")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9a-fA-F:.]+")
# What XML 1.0 can hold, without line breaks: they would be a second line of a file that is read by line.
_UNWRITABLE = re.compile("[^\t\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class KeyKind(StrEnum):
    """What an account key lets its holder do."""

    WEAK = "weak"
    """Attach hosts, nothing else."""
    STRONG = "strong"
    """Everything, logging in included. Cannot be changed on most servers; never reaches a guest."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A project that a machine works for."""

    project_url: str
    authenticator: str
    """The weak account key."""
    weight: float
    """Share beside the other projects of the machine; BOINC's resource share is 100 by default, and with 0 a project
    is asked for work only when no other has any."""

    def __repr__(self) -> str:
        return f"Attachment(project_url={self.project_url!r}, weight={self.weight!r})"


def kind_of(authenticator: str) -> KeyKind:
    """Whether it looks like `<user id>_<32 hex digits>` (weak), 32 hex digits (strong), or neither."""
    if _WEAK.fullmatch(authenticator):
        return KeyKind.WEAK
    return KeyKind.STRONG if _STRONG.fullmatch(authenticator) else KeyKind.UNKNOWN


def user_of(weak_key: str) -> int:
    """The project's id of the user whose weak key this is; 0 for what is none."""
    return int(weak_key.partition("_")[0]) if kind_of(weak_key) is KeyKind.WEAK else 0


def canonical_url(url: str) -> str:
    """The master URL as BOINC compares it: lower-case scheme and host, one slash at the end.

    Raises ValueError with a sentence for anything but a plain http(s) address.
    """
    text = url.strip()
    if len(text) > LONGEST_URL:
        raise ValueError(f"is longer than {LONGEST_URL} characters")
    if not _URL_TEXT.fullmatch(text):
        raise ValueError("holds a character that no project's address has")
    parts = urlsplit(text)
    if parts.scheme.lower() not in ("http", "https"):
        raise ValueError("must begin with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password")
    host = parts.hostname or ""
    if not _HOST.fullmatch(host) or ".." in host:
        raise ValueError("names no host")
    port = f":{parts.port}" if parts.port is not None else ""
    shown = f"[{host}]" if ":" in host else host
    path = "/" + "/".join(part for part in parts.path.split("/") if part)
    return f"{parts.scheme.lower()}://{shown}{port}{path.rstrip('/')}/"


def account_file_name(project_url: str) -> str:
    """The name under which the client looks: `account_` + address without scheme, escaped + `.xml`."""
    address = project_url.partition("://")[2] or project_url
    escaped = re.sub(r"[^A-Za-z0-9.-]", "_", address).rstrip("_")
    return f"account_{escaped}.xml"


def render_account_file(attachment: Attachment) -> str:
    """The account file of a project. Raises ValueError for what XML cannot hold on one line."""
    return (
        "<account>\n"
        f"    <master_url>{xml_text('project_url', attachment.project_url)}</master_url>\n"
        f"    <authenticator>{xml_text('authenticator', attachment.authenticator)}</authenticator>\n"
        "    <project_preferences>\n"
        f"        <resource_share>{attachment.weight:.10g}</resource_share>\n"
        "    </project_preferences>\n"
        "</account>\n"
    )


def xml_text(name: str, value: str) -> str:
    """The value as text of an element. Raises ValueError that says which, never what."""
    if _UNWRITABLE.search(value):
        raise ValueError(f"{name} holds a character that cannot be written into a BOINC file")
    return escape(value)
