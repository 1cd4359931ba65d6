"""Whether a licence lets its host's API change anything."""

from pyVmomi import vim

from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import read_objects

_FREE_WORDS = ("esxbasic", "hypervisor", "free")
_API_FEATURE = "vimapi"


def is_read_only(api: Api) -> bool:
    """Whether this is a single host under the free licence: its API answers, and refuses every change.

    A host of a vCenter cannot have that licence. Where the account may not read the licence, nothing is known: False.
    """
    if not api.on_host or api.content.licenseManager is None:
        return False
    rows = read_objects(api, "inventory", [api.content.licenseManager], {vim.LicenseManager: ("licenses",)})
    licences = rows[0].properties.get("licenses") or () if rows else ()
    return bool(licences) and all(is_free(each) for each in licences)


def is_free(licence: vim.LicenseManager.LicenseInfo) -> bool:
    """Whether a licence is one of the free ones, by edition or name, and does not list the API among its features."""
    named = f"{licence.editionKey or ''} {licence.name or ''}".lower()
    features = {
        str(getattr(each.value, "key", "")) for each in licence.properties or () if each.key == "feature"
    }
    return any(word in named for word in _FREE_WORDS) and _API_FEATURE not in features
