"""A machine of ours becomes a template: under its name, in our folder, with its mark."""

import structlog
from pyVmomi import vim

from libs.providers.base import Cause, Power, ProviderError, Rejected, TemplateSeen, Unavailable
from libs.providers.vsphere.actions import Yard, find_own
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.fleet import Machine
from libs.providers.vsphere.inventory import read_objects
from libs.providers.vsphere.marks import template_annotation, template_options
from libs.providers.vsphere.settings import Clone, VSphereSettings
from libs.providers.vsphere.templates import Templates

log = structlog.get_logger()


def may_keep(settings: VSphereSettings) -> bool:
    """Whether machines could be made of a template of ours: it has no snapshot, and linked clones need one."""
    return settings.clone_mode is not Clone.LINKED


async def keep_as_template(yard: Yard, templates: Templates, name: str) -> TemplateSeen:
    """Mark a machine that is off as a template; one that is a template already is success. Raises ProviderError."""
    doing = f"making {name} a template"
    if await yard.session.call(lambda api: api.on_host, doing):
        raise Rejected(Cause.INVALID, "a single ESXi host has no templates")
    if not may_keep(yard.settings):
        raise Rejected(Cause.INVALID, "a template of ours has no snapshot, which `clone: linked` needs")
    await yard.session.tasks.settle(name, doing)
    machine = await yard.session.call(lambda api: find_own(api, yard, name), doing)
    if machine is None:
        raise Rejected(Cause.NOT_FOUND, f"no machine {name} of ours")
    if not await yard.session.call(lambda api: _is_template(api, machine), doing):
        await _mark(yard, machine, doing)
    found = await yard.session.call(lambda api: templates.find(api, machine.id), doing)
    if found is None:
        raise Unavailable(Cause.CONFLICT, f"{doing}: it was marked and is not to be found")
    return found.seen


async def _mark(yard: Yard, machine: Machine, doing: str) -> None:
    if machine.power is not Power.OFF:
        raise Rejected(Cause.CONFLICT, f"{machine.name} is not off")
    bare = vim.vm.ConfigSpec(
        annotation=template_annotation(machine.label.mark), extraConfig=template_options()
    )
    await yard.session.do(lambda api: machine.ref.ReconfigVM_Task(bare), doing, about=machine.name)
    try:
        await yard.session.call(lambda api: machine.ref.MarkAsTemplate(), doing)
    except ProviderError:
        # It may have been heard all the same: what counts is what it is now.
        if not await yard.session.call(lambda api: _is_template(api, machine), doing):
            raise
    log.info("vsphere.template_kept", machine=machine.name, template=machine.id)


def _is_template(api: Api, machine: Machine) -> bool:
    rows = read_objects(api, "machines", [machine.ref], {vim.VirtualMachine: ("config.template",)})
    return bool(rows and rows[0].properties.get("config.template"))
