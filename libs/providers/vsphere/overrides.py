"""What is good to have but not needed: no DRS moves, no HA restart, and a custom attribute that people can see."""

from typing import Any

import structlog
from pyVmomi import vim

from libs.providers.base import Mark, ProviderError
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import Cluster
from libs.providers.vsphere.privileges import ATTRIBUTE
from libs.providers.vsphere.session import Session

log = structlog.get_logger()


async def keep_in_place(session: Session, cluster: Cluster, vm: Any) -> None:
    """Tell DRS to leave the machine on its host and HA not to restart it; where that is refused, go on without."""
    if not isinstance(cluster.ref, vim.ClusterComputeResource):
        return
    spec = vim.cluster.ConfigSpecEx(
        drsVmConfigSpec=[
            vim.cluster.DrsVmConfigSpec(
                operation="add",
                # Partly automated: DRS may recommend a move, and maintenance may ask for one; none happens by itself.
                info=vim.cluster.DrsVmConfigInfo(key=vm, enabled=True, behavior="partiallyAutomated"),
            )
        ],
        dasVmConfigSpec=[
            vim.cluster.DasVmConfigSpec(
                operation="add",
                info=vim.cluster.DasVmConfigInfo(
                    key=vm, dasSettings=vim.cluster.DasVmSettings(restartPriority="disabled")
                ),
            )
        ],
    )
    try:
        await session.do(
            lambda api: cluster.ref.ReconfigureComputeResource_Task(spec, True),
            "setting DRS and HA overrides",
        )
    except ProviderError as refusal:
        # Also what a repeat meets, since an override is added only once.
        log.info("vsphere.overrides_refused", cluster=cluster.id, cause=refusal.cause, reason=refusal.detail)


async def show_attribute(session: Session, vm: Any, mark: Mark) -> None:
    """Write the machine id into a custom attribute, where the account may."""
    try:
        await session.call(lambda api: _set_attribute(api, vm, str(mark.machine_id)), "setting the attribute")
    except ProviderError as refusal:
        log.info("vsphere.attribute_refused", cause=refusal.cause, reason=refusal.detail)


def has_attribute(api: Api) -> bool:
    """Whether the custom attribute of our machines is there already."""
    fields = api.content.customFieldsManager
    return fields is not None and _attribute_key(fields) is not None


def _set_attribute(api: Api, vm: Any, value: str) -> None:
    fields = api.content.customFieldsManager
    if fields is None:
        return
    key = _attribute_key(fields)
    if key is None:
        try:
            key = fields.AddCustomFieldDef(ATTRIBUTE, vim.VirtualMachine).key
        except vim.fault.DuplicateName:
            key = _attribute_key(fields)
    fields.SetField(vm, key, value)


def _attribute_key(fields: Any) -> int | None:
    return next((int(item.key) for item in fields.field or () if item.name == ATTRIBUTE), None)
