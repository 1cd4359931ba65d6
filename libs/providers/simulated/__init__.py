"""A cloud with physics: owners who come and go, clones and boots that take time, limits, faults, a clock of
its own.

A product like the other drivers: for trying Tides out, for accelerated runs that repeat exactly, and as the
first to pass the conformance suite. `driver` is the entry point; the rest is for whoever plays the cloud's
owner.
"""

from libs.common.clock import Clock, WallClock
from libs.providers.simulated.cloud import Cloud, HostTruth, MachineTruth, Truth
from libs.providers.simulated.control import Control
from libs.providers.simulated.driver import SimulatedDriver
from libs.providers.simulated.settings import ClusterDefinition, Faults, OwnerProfile, SimulatedSettings

__all__ = [
    "Cloud",
    "ClusterDefinition",
    "Control",
    "Faults",
    "HostTruth",
    "MachineTruth",
    "OwnerProfile",
    "SimulatedSettings",
    "Truth",
    "attach_cloud",
    "create_cloud",
    "driver",
]

driver = SimulatedDriver()


def create_cloud(
    url: str, password: str, settings: SimulatedSettings | None = None, clock: Clock | None = None
) -> Cloud:
    """A new simulated cloud, in this process or in a file. Raises ValueError when it exists."""
    return driver.create_cloud(url, password, settings or SimulatedSettings(), clock or WallClock())


def attach_cloud(url: str, clock: Clock | None = None) -> Cloud:
    """A simulated cloud that exists, for control and truth. Raises LookupError when it does not."""
    return driver.attach_cloud(url, clock or WallClock())
