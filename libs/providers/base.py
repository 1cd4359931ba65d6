"""The driver's contract: what Tides asks of a cloud, and how a cloud says no.

Every method is idempotent or read-only, has a deadline of its own, and may be repeated after a crash. A time-out
means "unknown": callers read back before anything else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from pydantic import BaseModel

from libs.common.clock import Clock
from libs.common.contracts.usage import Sample
from libs.common.secrets import Vault
from libs.providers.values import (
    Begun,
    Blocker,
    Capability,
    Cause,
    ClusterSeen,
    HostHardware,
    MachineSeen,
    MachineSpec,
    Mark,
    MissingPrivilege,
    Power,
    TemplateSeen,
    Validation,
)

ClusterUsage = Sample
"""One interval of one cluster: the driver's measurement is what the bus carries."""


class ProviderError(Exception):
    """A cloud's refusal: `cause` in our words, the message in the cloud's; carries no secret."""

    def __init__(self, cause: Cause, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail
        self.retry_after_s = retry_after_s
        """For how long the cloud asked to be left alone, where it said so."""


class Rejected(ProviderError):
    """The request itself is wrong; repeating it unchanged will never work."""


class LoginRefused(Rejected):
    """The cloud does not take this user name and password: wrong, expired, or the account is locked.

    Each further try brings an account nearer to being locked out: who catches this tries no such login again soon.
    """


class Unavailable(ProviderError):
    """The cloud did not answer, or cannot just now; the next beat tries again, with back-off."""


class Full(ProviderError):
    """No room: capacity, quota or datastore."""


class Provider(Protocol):
    """An open session to one resource. Async; blocking SDKs sit behind a bounded thread pool."""

    capabilities: frozenset[Capability]

    async def validate(self) -> Validation:
        """Facts, missing privileges by name, warnings. Raises Rejected (auth, tls) or Unavailable."""

    async def sample(self, since: datetime | None) -> Sequence[ClusterUsage]:
        """All clusters in one bulk round, oldest first; with `since`, also what was missed after it (back-fill)."""

    async def hardware(self) -> Sequence[HostHardware]:
        """What hosts are made of; asked now and then. One that is left out, or a figure that is None, is not known.

        A driver may read some hosts at each call; nothing where a cloud shows no hosts.
        """

    async def machines(self) -> Sequence[MachineSeen]:
        """Our machines, whatever installation marked them. An unreadable inventory is Unavailable, never empty."""

    async def recall(self, begun: Sequence[Begun]) -> None:
        """Take up what an earlier process had begun, as far as it still runs: `machines` shows it, `delete` ends it.

        Only where the target can (`Capability.RECALL`); what is known already costs no call.
        """

    async def find_template(self, name: str) -> TemplateSeen | None:
        """A template by its name or reference in scope; None when it does not exist."""

    async def keep_as_template(self, name: str) -> TemplateSeen:
        """Make a machine of ours that is off a template, under its name; `machines` shows it no more, `delete` ends it.

        One already is success. Only where the target can (`Capability.TEMPLATES`). Absent is Rejected(NOT_FOUND), one
        that is not off Rejected(CONFLICT).
        """

    async def create(self, spec: MachineSpec) -> None:
        """Make the machine, configured and powered off; found by name when it exists. Returns when accepted or done."""

    async def delete(self, name: str) -> None:
        """Destroy the machine with its disks, powering it off first. Absent is success."""

    async def set_power(self, name: str, power: Power) -> None:
        """Bring the machine to this power state; already there is success. Absent is Rejected(NOT_FOUND)."""

    async def set_limits(self, cluster: str, cap_mhz: float, machines: Mapping[str, float]) -> int:
        """Set the pool's cap and the CPU limits (MHz) by machine name; returns how many objects really changed."""

    async def release(self, cluster: str) -> None:
        """Remove our pool and folder of the cluster. Rejected(CONFLICT) while a machine of ours is in it."""

    async def aclose(self) -> None:
        """End the session."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where and as whom to open a session. The secret stays sealed until a driver opens it."""

    resource_id: UUID
    installation_id: UUID
    url: str
    username: str
    sealed_secret: str = field(repr=False)
    ca_pem: str | None = None
    thumbprint: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    revision: int = field(default=0, compare=False)
    """Of the resource that said so: who still holds an older one is given the newer one's session."""


def sealing_context(url: str, ca_pem: str | None, thumbprint: str | None) -> bytes:
    """The associated data of a sealed cloud secret: another endpoint or pin cannot open it."""
    return "\x00".join((url.rstrip("/"), ca_pem or "", (thumbprint or "").lower())).encode()


class Driver(Protocol):
    """An entry point of the group `tides.providers`: a name, a settings model, and a way to open a session."""

    name: str
    settings: type[BaseModel]
    """Frozen, extra='forbid'; registry validates a resource's settings with it."""

    def identify(self, url: str, settings: BaseModel) -> str:
        """The canonical endpoint and scope; two resources with the same identity are duplicates. Raises ValueError
        with a sentence for a URL this driver cannot use."""

    async def open(self, connection: Connection, vault: Vault, clock: Clock) -> Provider:
        """Open and log in. Raises LoginRefused, another Rejected (auth, tls, invalid) or Unavailable."""


__all__ = [
    "Begun",
    "Blocker",
    "Capability",
    "Cause",
    "ClusterSeen",
    "ClusterUsage",
    "Connection",
    "Driver",
    "Full",
    "HostHardware",
    "LoginRefused",
    "MachineSeen",
    "MachineSpec",
    "Mark",
    "MissingPrivilege",
    "Power",
    "Provider",
    "ProviderError",
    "Rejected",
    "TemplateSeen",
    "Unavailable",
    "Validation",
    "sealing_context",
]
