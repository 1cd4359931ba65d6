"""Clones under way: which machine each will be, how far it is, and how it is called off."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog
from pyVmomi import vim, vmodl

from libs.providers.base import (
    Begun,
    Cause,
    MachineSeen,
    MachineSpec,
    Mark,
    Power,
    Rejected,
    Unavailable,
)
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import read_objects, ref_id
from libs.providers.vsphere.session import Session
from libs.providers.vsphere.tasks import Followed
from libs.providers.vsphere.templates import Templates

CANCEL_WAIT_S = 10.0
LONGEST_S = 24 * 3600.0
"""Nothing that was begun is waited for any longer."""
TASK = "VirtualMachine.clone"
log = structlog.get_logger()


@dataclass(slots=True)
class Clone:
    """A clone task that was still running when it was last looked at."""

    task: Any
    name: str
    mark: Mark
    cluster: str
    host: str | None
    followed: Followed | None = None


@dataclass(slots=True)
class UnderWay:
    """What takes longer than a session may last, by machine name: clones, and on a single host copies of a disk."""

    clones: dict[str, Clone] = field(default_factory=dict)
    copies: dict[str, Any] = field(default_factory=dict)
    """Tasks of the cloud."""
    users: int = 0
    """Open sessions."""
    left_at: float = 0.0
    """When the last of them was closed, on the monotonic clock."""

    def is_over(self, now: float) -> bool:
        """Whether nobody asks for it any more: no session is open, and what it knows of has ended or is long past."""
        is_empty = not (self.clones or self.copies)
        return self.users == 0 and (is_empty or now - self.left_at > LONGEST_S)


class Clones:
    """The clones that we began and have not seen the end of, also in sessions before this one, by machine name."""

    def __init__(self, session: Session, known: dict[str, Clone]) -> None:
        self._session = session
        self._known = known
        for clone in known.values():
            clone.followed = None  # whoever followed it is gone

    def note(self, spec: MachineSpec, task: Any) -> None:
        """A clone has begun; may be called from any thread, the moment that the cloud has said so."""
        self._known[spec.name] = Clone(task, spec.name, spec.mark, spec.cluster, spec.host)

    async def take_up(self, begun: Sequence[Begun], templates: Templates) -> None:
        """Clones that an earlier process began and that still run, known from now on as if they were begun here."""
        unknown = [each for each in begun if not self._is_known(each)]
        doing = "finding clones again"
        for each in unknown:
            try:
                task = await self._session.call(partial(_find_running, each, templates), doing)
            except Rejected as refusal:  # as before there were tasks to be found: the name alone protects
                log.info("vsphere.clone_not_found_again", machine=each.name, reason=refusal.detail)
                continue
            if task is not None and not self._is_known(each):
                self._known[each.name] = Clone(task, each.name, each.mark, each.cluster, each.host)
                log.info("vsphere.clone_found_again", machine=each.name, task=each.task_id)

    def _is_known(self, begun: Begun) -> bool:
        """Whether the machine's clone is known, or its task as another's: an id came again, and that is not to end."""
        tasks = {ref_id(clone.task) for clone in list(self._known.values())}
        return begun.name in self._known or begun.task_id in tasks

    def find(self, name: str) -> Any | None:
        """The clone's task."""
        known = self._known.get(name)
        return known.task if known is not None else None

    def forget(self, name: str) -> None:
        """The clone has ended, and what came of it is looked at."""
        self._known.pop(name, None)

    def show(self, seen: list[MachineSeen]) -> list[MachineSeen]:
        """What is seen, and the machines that are only being cloned: on each the task that runs, and how far it is."""
        running = {
            clone.name: clone
            for clone in list(self._known.values())
            if not self._follow(clone).ended.is_set()
        }
        shown = [
            _being_cloned(machine, self._follow(running.pop(machine.name)))
            if machine.name in running
            else machine
            for machine in seen
        ]
        return shown + [
            MachineSeen(
                name=clone.name,
                mark=clone.mark,
                cluster=clone.cluster,
                host=clone.host,
                power=Power.OFF,
                configured=False,
                limit_mhz=None,
                task=TASK,
                progress=self._follow(clone).progress,
                task_id=ref_id(clone.task),
            )
            for clone in running.values()
        ]

    async def call_off(self, name: str) -> None:
        """End the clone of a machine that is no longer wanted. What it has made all the same is there to be deleted.

        Raises Unavailable while it still runs: the machine is not gone before it is known what became of it.
        """
        clone = self._known.get(name)
        if clone is None:
            return
        followed, doing = self._follow(clone), f"calling off the clone of {name}"
        if not followed.ended.is_set() and followed.cancelable is not False:
            await self._session.tasks.cancel(clone.task, doing)
        try:
            end = await self._session.tasks.end_of(clone.task, doing, CANCEL_WAIT_S)
        except Unavailable as refusal:
            if refusal.cause is Cause.TIMEOUT and not followed.ended.is_set():
                raise Unavailable(Cause.CONFLICT, f"{name} is still being cloned: {refusal.detail}") from None
            raise
        log.info("vsphere.clone_ended", machine=name, reason=end.fault and str(end.fault))
        self.forget(name)

    def _follow(self, clone: Clone) -> Followed:
        if clone.followed is None:
            clone.followed = self._session.tasks.follow(clone.task)
        return clone.followed


def _being_cloned(machine: MachineSeen, clone: Followed) -> MachineSeen:
    return replace(machine, task=TASK, progress=clone.progress, task_id=ref_id(clone.task))


def _find_running(begun: Begun, templates: Templates, api: Api) -> Any | None:
    """The task, if it still runs and is a clone of this template: ids of a vCenter that was set back come again."""
    task = vim.Task(begun.task_id, api.stub)
    paths = ("info.state", "info.descriptionId", "info.entity")
    try:
        rows = read_objects(api, "tasks", [task], {vim.Task: paths})
    except vmodl.fault.ManagedObjectNotFound:
        return None
    got = rows[0].properties if rows else {}
    what = str(got.get("info.descriptionId", "")).rpartition(".")[2].lower()
    is_clone = what in ("clone", "clonevm") and str(got.get("info.state")) in ("queued", "running")
    if not is_clone or got.get("info.entity") is None:
        return None
    template = templates.find(api, begun.template)
    if template is None or ref_id(template.ref) != ref_id(got["info.entity"]):
        return None
    return task
