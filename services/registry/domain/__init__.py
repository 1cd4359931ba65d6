"""What may be registered: names, addresses and pins, judged without asking anybody."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit, urlunsplit

LONGEST_URL = 2000
_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{2}(?::?[0-9A-Fa-f]{2}){31}")
_SEEN = re.compile(r"\b(?:[0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}\b|\b[0-9A-Fa-f]{64}\b")


class Health(StrEnum):
    """How a resource answers, by what the monitor says."""

    UNKNOWN = "unknown"
    """Not heard of yet."""
    OK = "ok"
    DEGRADED = "degraded"


class NotAcceptable(ValueError):
    """A field that cannot be taken: which, why, and what to do. Quotes nothing that was sent."""

    def __init__(self, field: str, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail
        self.remedy = remedy


def check_text(field: str, text: str, longest: int) -> str:
    """One line for people, without spaces around it. Raises NotAcceptable."""
    text = text.strip()
    if not 1 <= len(text) <= longest or not text.isprintable():
        raise NotAcceptable(
            field,
            f"The {field} must be 1 to {longest} printable characters.",
            "Leave out line breaks, tabs and other control characters.",
        )
    return text


def name_key(name: str) -> str:
    """What names are compared by: two that differ in capitals or in the form of their letters are one name."""
    return unicodedata.normalize("NFKC", name).casefold()


def check_url(url: str) -> str:
    """An address that can be asked, without credentials in it. Raises NotAcceptable."""
    url = check_text("url", url, LONGEST_URL)
    remedy = "Give an address such as https://vcenter.example.org."
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise NotAcceptable("url", "The URL cannot be read.", remedy) from None
    if "@" in parts.netloc:
        raise NotAcceptable(
            "url", "The URL holds a user name or a password.", "Give them as `username` and `password`."
        )
    if not parts.scheme or not (host or parts.path) or port == 0 or any(one.isspace() for one in url):
        raise NotAcceptable("url", "The URL cannot be read.", remedy)
    if parts.query or parts.fragment:
        raise NotAcceptable("url", "The URL has a query or a fragment.", "Leave out everything from ? or #.")
    return url


def check_thumbprint(text: str | None) -> str | None:
    """A certificate's SHA-256 fingerprint in hexadecimal; empty is none. Raises NotAcceptable."""
    text = (text or "").strip()
    if not text:
        return None
    if not _FINGERPRINT.fullmatch(text):
        raise NotAcceptable(
            "thumbprint",
            "The thumbprint is not a fingerprint of a certificate.",
            "Give the SHA-256 fingerprint: 64 hexadecimal digits, with or without colons.",
        )
    return text


def seen_thumbprint(detail: str) -> str | None:
    """The fingerprint that a driver's words about a refused certificate mention."""
    found = _SEEN.search(detail)
    return found.group() if found else None


def instance_url(url: str, instance_id: str) -> str | None:
    """The URL with the cloud's own id instead of its address; None where that makes no URL."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}", instance_id):
        return None
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, instance_id.lower(), parts.path if parts.netloc else "", "", ""))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom to reach a cloud, checked; the secret is sealed for exactly this address and pin."""

    provider: str
    url: str
    identity: str
    username: str
    sealed_secret: str = field(repr=False)
    ca_pem: str | None
    thumbprint: str | None
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Credential:
    """As whom else to ask a cloud; the secret is sealed for the resource's address and pin."""

    username: str
    sealed_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a live validation found."""

    instance_identity: str | None
    validation: dict[str, Any]
    capabilities: list[str]


def lacks(seen: Mapping[str, Any], known: Mapping[str, Any] | None) -> list[str]:
    """What an account cannot do or see that was found possible with another: privileges, then clusters, by name.

    Both are what validations found; nothing is lacking where the other one found nothing.
    """
    if known is None or not known["ok"]:
        return []
    had = {each["privilege"] for each in known["missing"]}
    sees = {each["cluster"] for each in seen["clusters"]}
    privileges = [each["privilege"] for each in seen["missing"] if each["privilege"] not in had]
    return privileges + [each["name"] for each in known["clusters"] if each["cluster"] not in sees]
