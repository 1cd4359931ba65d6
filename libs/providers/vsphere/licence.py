"""Whether a licence lets its host's API change anything."""

from pyVmomi import vim

from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import read_objects

_FREE_EDITIONS = ("esxbasic",)
_FREE_NAME = "hypervisor"
_API_FEATURE = "vimapi"


def is_read_only(api: Api) -> bool:
    """Whether this is a single host under the free licence: its API answers, and refuses every change.

    A host of a vCenter cannot have that licence. Where the account may not read the licence, nothing is known: False.
    """
    if not api.on_host or api.content.licenseManager is None:
        return False
    rows = read_objects(api, "inventory", [api.content.licenseManager], {vim.LicenseManager: ("licenses",)})
    licences = rows[0].properties.get("licenses") or () if rows else ()
    return bool(licences) and all(_is_free(each) for each in licences)


def _is_free(licence: vim.LicenseManager.LicenseInfo) -> bool:
    edition, name = str(licence.editionKey or "").lower(), str(licence.name or "").lower()
    features = {
        str(getattr(each.value, "key", "")) for each in licence.properties or () if each.key == "feature"
    }
    free = edition.startswith(_FREE_EDITIONS) or _FREE_NAME in name
    return free and _API_FEATURE not in features
