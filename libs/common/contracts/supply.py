"""What policy, templates, contribution and identity say: the rules and the goods that workload acts with."""

from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from pydantic import AwareDatetime

from libs.common.contracts.base import Event, StateEvent


class Scope(StrEnum):
    """What a policy is assigned to; the nearest one wins: cluster before resource."""

    RESOURCE = "resource"
    CLUSTER = "cluster"


class PolicyAssigned(StateEvent):
    """The policy in force for a resource or a cluster, whole; `gone` when none is assigned any more."""

    key: ClassVar[str] = "policy.assigned.v1"

    scope: Scope
    scope_id: UUID
    policy_id: UUID
    policy_name: str
    policy_revision: int
    document: dict[str, Any]
    """The policy document, readable by libs.harvest.document."""

    @property
    def subject(self) -> str:
        return f"{self.scope}/{self.scope_id}"


class TemplateState(StrEnum):
    """Only an approved version deploys; a revoked one drains its machines."""

    DRAFT = "draft"
    APPROVED = "approved"
    REVOKED = "revoked"


class TemplateChanged(StateEvent):
    """One version of a template, where it is in its resource and whether it may be deployed."""

    key: ClassVar[str] = "template.changed.v1"

    version_id: UUID
    template_id: UUID
    organisation_id: UUID
    name: str
    version: int
    resource_id: UUID
    reference: str
    """What the driver finds the template by."""
    disk_gib: float
    state: TemplateState
    derived_from: UUID | None = None
    """The version that it was made from; None: from none, or not known."""
    components: tuple[str, ...] = ()
    """What the image holds, so that its machines do not install it: boinc, agent, ca; words may be added."""

    @property
    def subject(self) -> str:
        return str(self.version_id)


class ContributionChanged(StateEvent):
    """An organisation lends to a project: where, with which weight, and what a guest needs to attach."""

    key: ClassVar[str] = "contribution.changed.v1"

    contribution_id: UUID
    organisation_id: UUID
    project_id: UUID
    project_name: str
    project_url: str
    weight: float
    active: bool
    resource_ids: tuple[UUID, ...] | None
    """The resources that work for it; None: every resource of the organisation."""
    sealed_authenticator: str
    """The project's weak account key, sealed; it lets a guest attach and nothing else."""
    project_signed: bool | None = None
    """Whether the project's address is signed, so that a client takes it from its account manager; None: not said."""
    priority: int = 0
    """Machines work for the highest that has room; those below stand by where they have no quota."""
    most_machines: int | None = None
    """Its quota: at most so many machines work for it; None: no bound."""
    most_vcpus: int | None = None
    """The same of their vCPUs."""

    @property
    def subject(self) -> str:
        return str(self.contribution_id)


class MachineDrained(Event):
    """The guest of a machine that is to go has ended its work: nothing more is saved by waiting."""

    key: ClassVar[str] = "contribution.machine_drained.v1"

    machine_id: UUID
    organisation_id: UUID
    resource_id: UUID
    lost_cpu_s: float
    """CPU seconds of tasks that were handed back unfinished, by the guest's own account."""
    tasks: int
    took_s: float

    @property
    def subject(self) -> str:
        return str(self.machine_id)


UNHEARD = frozenset({"silent", "absent", "stopped"})
"""Words of a guest's health that say that nothing is heard of it; every other one, a new one too, says it lives."""


class GuestHealthChanged(Event):
    """How a machine's guest does is another thing than what was last said of it, and has been for long enough."""

    key: ClassVar[str] = "contribution.guest_health_changed.v1"

    machine_id: UUID
    organisation_id: UUID
    resource_id: UUID
    health: str
    """enrolled, working, starved, broken, silent, absent (never heard of), held or stopped; words may be added."""
    before: str | None = None
    """What was said before; None: nothing."""
    why: str = ""
    """In words, where there is more to say."""
    since: AwareDatetime
    """Since when it is so; `at` is when it had been so for long enough."""

    @property
    def subject(self) -> str:
        return str(self.machine_id)


class TokenRevoked(Event):
    """A personal API token (and every access token made from it) is void from now on."""

    key: ClassVar[str] = "identity.token_revoked.v1"

    token_id: UUID

    @property
    def subject(self) -> str:
        return str(self.token_id)
