"""What stands against lending a vSphere target, however well it can be observed, and what its owner can do."""

from collections.abc import Iterable, Sequence

from pyVmomi import vim

from libs.providers.base import Blocker, MissingPrivilege
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.hardware import named_networks
from libs.providers.vsphere.inventory import Cluster, choose_datastore, read_objects
from libs.providers.vsphere.licence import is_read_only
from libs.providers.vsphere.privileges import OF_DERIVED, OPTIONAL, TEMPLATE
from libs.providers.vsphere.settings import VSphereSettings

OLDEST_API = (6, 5)


def find_blockers(
    api: Api,
    clusters: Sequence[Cluster],
    settings: VSphereSettings,
    missing: Sequence[MissingPrivilege],
    foldered: bool,
) -> Iterable[Blocker]:
    """Each reason why no machine can be made; `foldered` is whether our folders exist already."""
    version = str(api.content.about.apiVersion)
    if parse_version(version) < OLDEST_API:
        yield Blocker(
            "api_too_old", f"The API version {version} is older than 6.5.", "Update it to 6.5 or newer."
        )
    manager = _manager_of(api, clusters)
    if manager is not None:
        yield Blocker(
            "managed_host",
            f"The host belongs to the vCenter at {manager}, which moves machines and owns the pools.",
            "Register that vCenter, with this host's cluster as its scope.",
        )
    if is_read_only(api):
        yield Blocker(
            "read_only_licence",
            "The host's licence makes its API read-only: it can be observed, and every change would be refused.",
            "Give the host a licence that includes the vSphere API, or register the vCenter that manages it.",
        )
    yield from _lacking_places(api, clusters, settings)
    yield from (
        Blocker(
            f"privilege:{each.privilege}",
            f"The account lacks the privilege {each.privilege}, which is needed for {each.disables}.",
            "Grant it; `tides vsphere role` prints the commands.",
        )
        for each in _vital(missing, foldered)
    )


def _lacking_places(api: Api, clusters: Sequence[Cluster], settings: VSphereSettings) -> Iterable[Blocker]:
    """What machines would stand in, or lie on, and what is nowhere."""
    if settings.network is None:
        yield Blocker(
            "no_network",
            "No network is named, so machines would stand where nobody chose.",
            "Set `network` in the settings to a port group of their own.",
        )
    elif all(lacks_network(api, cluster, settings) for cluster in clusters):
        yield Blocker(
            "network_missing",
            f"No cluster has a network named {settings.network!r}.",
            "Make that port group, or name another one as `network` in the settings.",
        )
    if all(lacks_datastore(cluster, settings) for cluster in clusters):
        yield Blocker(
            "no_datastore",
            "No cluster has a usable datastore for machines.",
            "Name one as `datastore` in the settings, or give the hosts of a cluster a shared one.",
        )


def _manager_of(api: Api, clusters: Sequence[Cluster]) -> str | None:
    """The address of the vCenter that a single host is managed by; None where it is on its own."""
    if not api.on_host:
        return None
    hosts = [host.ref for cluster in clusters for host in cluster.hosts]
    rows = read_objects(api, "inventory", hosts, {vim.HostSystem: ("summary.managementServerIp",)})
    return next(filter(None, (row.properties.get("summary.managementServerIp") for row in rows)), None)


def _vital(missing: Sequence[MissingPrivilege], foldered: bool) -> Iterable[MissingPrivilege]:
    # The same right on our own folder is for derived images only.
    lacking = {each.privilege for each in missing if each.disables != OF_DERIVED}
    spared = set(OPTIONAL)
    if foldered:
        spared.add("Folder.Create")
    if not lacking.issuperset(TEMPLATE.privileges):
        # Each serves one kind of template: with one of them there is something to make machines from.
        spared |= TEMPLATE.privileges.keys()
    return (each for each in missing if each.privilege not in spared and each.disables != OF_DERIVED)


def lacks_network(api: Api, cluster: Cluster, settings: VSphereSettings) -> bool:
    """Whether the cluster has no network of the name that was given."""
    return not named_networks(api, cluster, settings.network)


def lacks_datastore(cluster: Cluster, settings: VSphereSettings) -> bool:
    """Whether the cluster has no datastore that machines could use."""
    return choose_datastore(cluster, settings) is None


def parse_version(text: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(part) if part.isdigit() else 0 for part in text.split(".")[:2])
