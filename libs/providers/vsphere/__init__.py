"""Driver for VMware vSphere: vCenter, and ESXi as far as it can serve."""

from libs.providers.vsphere.driver import VSphereDriver, VSphereProvider
from libs.providers.vsphere.settings import VSphereSettings

driver = VSphereDriver()

__all__ = ["VSphereDriver", "VSphereProvider", "VSphereSettings", "driver"]
