"""Property paths that a vCenter of the version that vcsim tells does not have: a real one refuses them."""

import re
from functools import lru_cache
from typing import Any

from pyVmomi import VmomiSupport, vim
from pyVmomi.VmomiSupport import GetWsdlType, ManagedObject

_VERSION = "vim.version.version11"
"""API 6.5."""
_SEEN_AS = {vim.ComputeResource.ConfigInfo: vim.cluster.ConfigInfoEx}
"""What a property is declared as, and what a cluster really puts there."""


def find_unknown(body: str) -> str | None:
    """The first path of a retrieval or a filter that its object cannot have."""
    for wanted in re.findall(r"<propSet[^>]*>(.*?)</propSet>", body, re.DOTALL):
        kind = re.search(r"<type[^>]*>(\w+)</type>", wanted)
        for path in re.findall(r"<pathSet[^>]*>([^<]+)</pathSet>", wanted):
            if kind is not None and not _exists(kind[1], path):
                return str(path)
    return None


@lru_cache(maxsize=1024)
def _exists(kind: str, path: str) -> bool:
    holder: Any = GetWsdlType("urn:vim25", kind)
    for name in path.split("."):
        try:
            found = holder._GetPropertyInfo(name)
        except AttributeError:
            return False
        if not VmomiSupport.IsChildVersion(_VERSION, found.version):  # type: ignore[attr-defined, no-untyped-call]
            return False
        holder = _SEEN_AS.get(found.type, found.type)
        if issubclass(holder, ManagedObject):
            return name == path.rsplit(".", maxsplit=1)[-1]
    return True
