"""What a project's own server may hear on the public exchange: its hosts that come and go, how much to expect of them.

A project knows hosts by its own numbers. Nothing of the cloud is in these events: no name, machine or organisation.
"""

from typing import ClassVar
from uuid import UUID

from libs.common.contracts.base import Event


class ProjectFact(Event):
    """Something that concerns one project; on the public exchange its routing key begins with `project.<id>.`"""

    project_id: UUID

    @property
    def subject(self) -> str:
        return str(self.project_id)


class HostFact(ProjectFact):
    """Something happened to a host of the project."""

    host_id: int
    """The project's own id."""


class HostAttached(HostFact):
    """The host works for the project; after a drain: it was called off."""

    key: ClassVar[str] = "contribution.host_attached.v1"
    vcpus: int
    fpops: float
    """Operations a second and core, by the client's benchmark; 0: not known."""


class HostDraining(HostFact):
    """The host fetches nothing more, hands back what it has not begun, and goes."""

    key: ClassVar[str] = "contribution.host_draining.v1"
    grace_s: float
    """How long it has at most; 0: it is not said."""


class HostDetached(HostFact):
    """The host is gone, or works for the project no more: what it has not reported will not come."""

    key: ClassVar[str] = "contribution.host_detached.v1"


class HoursExpected(ProjectFact):
    """How much the project may expect of all its hosts here, said each hour."""

    key: ClassVar[str] = "contribution.hours_expected.v1"
    hosts: int
    cores: float
    """Virtual cores that work for it now, by its share of each machine."""
    core_hours: float
    """In the next 24 hours, if it goes on as yesterday and today; never more than the cores have."""
