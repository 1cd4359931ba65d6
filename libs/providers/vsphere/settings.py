"""What an operator chooses for a vSphere resource: its scope, and where our machines live in it."""

from enum import StrEnum
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# vCenter escapes these in names; ours are found by their exact name, so they are refused up front.
Name = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^[^%/\\]+$")]

NATIVE_INTERVAL_S = 20
"""Real-time statistics come every 20 s and are kept for an hour."""


class Clone(StrEnum):
    """How a machine's disks are made from its template's."""

    FULL = "full"
    LINKED = "linked"
    """Only what differs from the template's snapshot is stored; refused where that is impossible."""
    AUTO = "auto"
    """Linked where it is possible, else full."""


class VSphereSettings(BaseModel):
    """Settings of a vSphere resource; empty scopes mean everything that the account can see."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    datacenters: tuple[Name, ...] = ()
    clusters: tuple[Name, ...] = ()
    """Names of clusters and stand-alone hosts."""
    folder: Name = "tides"
    """Folder of our machines in each datacenter; made on demand."""
    pool: Name = "tides"
    """Resource pool of our machines in each cluster; made on demand."""
    network: Name | None = None
    """Dedicated port group of our machines; None: observed only, no machine is made."""
    datastore: Name | None = None
    """None: the shared datastore of the cluster with the most free space."""
    linked_clone: bool = False
    """The older way to say `clone: linked`."""
    clone: Clone = Clone.FULL
    disk_iops: int | None = Field(default=None, ge=16, le=1_000_000)
    """Limit of each disk of our machines; None: none."""
    interval_s: int = Field(
        default=NATIVE_INTERVAL_S, ge=NATIVE_INTERVAL_S, le=300, multiple_of=NATIVE_INTERVAL_S
    )
    """Length of one sample."""

    @property
    def clone_mode(self) -> Clone:
        """What `clone` says, and where it says nothing the older setting."""
        return Clone.LINKED if self.linked_clone and "clone" not in self.model_fields_set else self.clone


class Endpoint(BaseModel):
    """Where a vSphere API listens."""

    model_config = ConfigDict(frozen=True)

    host: str
    port: int
    path: str

    @property
    def text(self) -> str:
        """The address in its canonical form."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}{self.path}"


def parse_url(url: str) -> Endpoint:
    """Read `https://host[:port][/sdk]`. Raises ValueError with a sentence."""
    try:
        parts: SplitResult = urlsplit(url.strip())
        port = parts.port or 443
    except ValueError as error:
        raise ValueError(f"not a URL that vSphere can have: {error}") from None
    if parts.scheme != "https":
        raise ValueError("a vSphere URL begins with https://, for instance https://vcenter.example.org")
    if parts.username or parts.password:
        raise ValueError("leave user and password out of the URL; they are given apart and kept sealed")
    if not parts.hostname:
        raise ValueError("the vSphere URL names no host")
    if parts.query or parts.fragment:
        raise ValueError("a vSphere URL has no query and no fragment")
    path = parts.path.rstrip("/")
    return Endpoint(host=parts.hostname.lower(), port=port, path=path or "/sdk")


def identify(url: str, settings: VSphereSettings) -> str:
    """Endpoint and scope in one canonical text: two resources with the same one are duplicates."""
    scope = ";".join(
        f"{kind}={','.join(sorted(names))}"
        for kind, names in (("datacenters", settings.datacenters), ("clusters", settings.clusters))
        if names
    )
    return f"vsphere://{parse_url(url).text}" + (f"?{scope}" if scope else "")
