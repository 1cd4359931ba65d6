"""What registry, policy, templates and contribution first say to workload in tests."""

from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

from libs.common.contracts.resource import Mode, ResourceChanged
from libs.common.contracts.supply import ContributionChanged, TemplateChanged, TemplateState
from libs.common.ids import new_id
from libs.common.secrets import authenticator_context
from libs.common.settings import Settings
from libs.providers.base import sealing_context
from libs.providers.simulated import Cloud
from tests.service.lone_service import OURS

PASSWORD = "correct horse"
START = datetime(2026, 11, 20, 2, tzinfo=UTC)
INTERVAL_S = 20
POLICY: dict[str, Any] = {
    "name": "quick",
    "machine": {"template": "boinc-worker", "vcpus": 4, "memory_mib": 4096, "disk_gib": 10},
    "cpu": {"idle": 0.5, "stop_new": 0.6, "reclaim": 0.7},
    "ladder": {"stop_new_after_s": 20, "suspend_after_s": 20, "drain_after_s": 40, "drain_grace_s": 60},
    "margin": 0.0, "sigma": 0.0, "idle_dwell_s": 0, "busy_dwell_s": 0, "cooldown_s": 0, "rise_s": 0,
    "dead_band": 0.1,
}  # fmt: skip
"""No dwell: what a sample says holds at once. What a cut goes deeper is not worth a raise."""
HALF_MHZ = 7_400
"""A host's budget after a cut to an owner who uses half of it: 90 % less 50 %, and 3 % that a cut goes deeper."""
MORE_MHZ = 5_400
"""The same for an owner who uses 60 %."""


def first_words(
    settings: Settings, cloud: Cloud
) -> tuple[ResourceChanged, TemplateChanged, ContributionChanged]:
    """A resource that is observed, an approved template and an active contribution."""
    vault, resource_id, contribution_id = settings.vault(), uuid4(), uuid4()
    common = {"at": START, "revision": 1, "organisation_id": OURS}
    resource = {
        "resource_id": resource_id, "name": "Lab", "provider": "simulated", "url": cloud.url, "settings": {},
        "username": "tides", "sealed_secret": vault.seal(PASSWORD, sealing_context(cloud.url, None, None)),
        "ca_pem": None, "thumbprint": None, "mode": Mode.OBSERVE, "interval_s": INTERVAL_S,
    }  # fmt: skip
    template = {
        "version_id": uuid4(), "template_id": uuid4(), "name": "boinc-worker", "version": 1, "disk_gib": 8,
        "resource_id": resource_id, "reference": "vm-9001", "state": TemplateState.APPROVED,
    }  # fmt: skip
    contribution = {
        "contribution_id": contribution_id, "project_id": uuid4(), "project_name": "Rosetta", "weight": 1,
        "project_url": "https://boinc.example.org/", "active": True, "resource_ids": None,
        "sealed_authenticator": vault.seal("weak-key", authenticator_context(contribution_id)),
    }  # fmt: skip
    return (
        ResourceChanged.model_validate(common | resource),
        TemplateChanged.model_validate(common | template),
        ContributionChanged.model_validate(common | contribution),
    )


S = TypeVar("S", ResourceChanged, TemplateChanged, ContributionChanged)


def next_state(known: S, /, **changes: Any) -> S:
    """The same thing at its next revision, changed."""
    return known.model_copy(update={"id": new_id(), "revision": known.revision + 1, **changes})
