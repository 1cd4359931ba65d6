"""SOAP faults as pyVmomi's own typed ones, so that one table judges what either wire says."""

from collections.abc import Mapping
from typing import Any

from pyVmomi import vmodl
from pyVmomi.VmomiSupport import GetWsdlType

from libs.providers.vsphere.soap.answer import XSI_TYPE, Element

NAMESPACE = "urn:vim25"
_TOLD = ("privilegeId", "invalidProperty", "name", "datastore")
_LONGEST = 2000


def read_fault(element: Element) -> Any:
    """The fault of a SOAP Fault element; its kind may be one that this pyVmomi does not know."""
    text = element.findtext("faultstring") or ""
    detail = element.find("detail")
    first = detail[0] if detail is not None and len(detail) else None
    if first is None:
        return make_fault("RuntimeFault", text)
    kind = (first.get(XSI_TYPE) or "").rpartition(":")[2]
    leaves = {child.tag.rpartition("}")[2]: child.text or "" for child in first if not len(child)}
    return make_fault(kind or first.tag.rpartition("}")[2].removesuffix("Fault"), text, leaves)


def make_fault(kind: str, text: str, leaves: Mapping[str, str] | None = None) -> Any:
    """A fault of this type with the server's sentence."""
    try:
        fault = GetWsdlType(NAMESPACE, kind)()
        known = isinstance(fault, vmodl.MethodFault)
    except Exception:  # the name came from the other side, and pyVmomi says no in many ways
        known = False
    if not known:
        fault, text = vmodl.RuntimeFault(), f"{kind[:100]}: {text}"
    fault.msg = text[:_LONGEST]
    for name in _TOLD:
        value = (leaves or {}).get(name)
        if value and hasattr(fault, name) and isinstance(getattr(fault, name), str | None):
            _tell(fault, name, value[:_LONGEST])
    return fault


def _tell(fault: Any, name: str, value: str) -> None:
    try:
        setattr(fault, name, value)
    except TypeError:
        return  # a reference by this name: the sentence says enough
