"""Scheduled tasks of a vCenter: what will be done with which machine or host, and when; read now and then."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog
from pyVmomi import vim
from pyVmomi.VmomiSupport import GetWsdlName

from libs.common.contracts.usage import Coming
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import read_objects, ref_id
from libs.providers.vsphere.soap import Ref

log = structlog.get_logger()

MOST_SCHEDULED = 5000
"""Of more the newest are read: whoever plans so much hides what was planned before, and a warning says so."""
_A_PAGE = 500
_KINDS = {
    "poweron": Coming.POWER_ON,
    "executevmpoweronlro": Coming.POWER_ON,
    "migrate": Coming.MIGRATION,
    "relocate": Coming.MIGRATION,
    "executevmotionlro": Coming.MIGRATION,
    "createsnapshot": Coming.SNAPSHOT,
    "createsnapshotex": Coming.SNAPSHOT,
    "removesnapshot": Coming.SNAPSHOT,
    "removeallsnapshots": Coming.SNAPSHOT,
    "consolidatedisks": Coming.SNAPSHOT,
    "consolidatevmdisks": Coming.SNAPSHOT,
    "entermaintenancemode": Coming.MAINTENANCE,
}
"""By the last word of a task's description or the method's name, in small letters."""


class Planned(NamedTuple):
    """Something that a vCenter will do by itself."""

    kind: Coming
    at: datetime
    about: Ref
    """A machine or a host."""


def kind_of(what: str) -> Coming | None:
    """What a task or a method announces, by its name; None for nothing that brings load."""
    word = what.rpartition(".")[2].lower().removesuffix("_task")
    return _KINDS.get(word) or _KINDS.get(word.removesuffix("vm"))


def read_schedule(api: Api) -> list[Planned]:
    """What is scheduled of that kind, as far as this account may see it; nothing where there is no such manager."""
    manager = api.content.scheduledTaskManager
    if manager is None:
        return []
    rows = read_objects(api, "schedule", [manager], {type(manager): ("scheduledTask",)})
    refs = [ref for row in rows for ref in row.properties.get("scheduledTask") or ()]
    if len(refs) > MOST_SCHEDULED:
        log.warning("vsphere.schedule_too_long", read=MOST_SCHEDULED, left_out=len(refs) - MOST_SCHEDULED)
    newest = refs[-MOST_SCHEDULED:]
    planned: list[Planned] = []
    for begin in range(0, len(newest), _A_PAGE):
        page = newest[begin : begin + _A_PAGE]
        found = read_objects(api, "schedule", page, {vim.scheduler.ScheduledTask: ("info",)})
        planned += plan_of(row.properties.get("info") for row in found)
    return planned


def plan_of(infos: Iterable[Any]) -> list[Planned]:
    """What brings load of these; what is switched off, or has no next time, is none of it."""
    planned = []
    for info in infos:
        at = getattr(info, "nextRunTime", None)
        method = getattr(getattr(info, "action", None), "name", None)
        # pyVmomi knows most methods as objects of its own.
        name = getattr(getattr(method, "info", None), "wsdlName", None) or str(method)
        kind, entity = kind_of(str(name)), getattr(info, "entity", None)
        if kind is None or entity is None or not isinstance(at, datetime) or not info.enabled:
            continue
        about = Ref(GetWsdlName(type(entity)), ref_id(entity))
        fits = "HostSystem" if kind is Coming.MAINTENANCE else "VirtualMachine"
        if about.kind == fits:
            planned.append(Planned(kind, at if at.tzinfo else at.replace(tzinfo=UTC), about))
    return planned
