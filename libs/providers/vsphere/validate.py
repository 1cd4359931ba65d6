"""What a vSphere target is, what the account may not do there, and what its operator should know."""

from collections.abc import Iterable, Sequence
from typing import Any

from pyVmomi import vim

from libs.providers.base import ClusterSeen, MissingPrivilege, Validation
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.blockers import find_blockers, lacks_datastore, lacks_network, parse_version
from libs.providers.vsphere.inventory import Cluster, find_folder, read_clusters, read_objects
from libs.providers.vsphere.rights import CannotTell, find_missing
from libs.providers.vsphere.settings import VSphereSettings
from libs.providers.vsphere.templates import template_refs

OLD_API = (7, 0)


def validate(api: Api, settings: VSphereSettings) -> Validation:
    """Facts, missing privileges by name with what they disable, what stands against lending, and warnings."""
    about = api.content.about
    clusters = read_clusters(api, settings)
    templates = template_refs(api, settings)
    missing: tuple[MissingPrivilege, ...] = ()
    untold = False
    try:
        missing = tuple(find_missing(api, clusters, settings, templates))
    except CannotTell:
        untold = True
    foldered = all(find_folder(api, cluster.vm_folder, settings.folder) for cluster in clusters)
    blockers = find_blockers(api, clusters, settings, missing, foldered)
    return Validation(
        product=str(about.fullName or about.name),
        api_version=str(about.apiVersion),
        instance_id=_instance_id(api, clusters),
        clusters=tuple(_describe(cluster) for cluster in clusters),
        missing=missing,
        warnings=tuple(_warnings(api, clusters, settings, templates, untold)),
        blockers=tuple(blockers),
    )


def _instance_id(api: Api, clusters: Sequence[Cluster]) -> str:
    """The vCenter's own id; of a single host, which has none, that of its hardware."""
    about = api.content.about
    if about.instanceUuid or not api.on_host:
        return str(about.instanceUuid or about.name)
    rows = read_objects(
        api,
        "inventory",
        [host.ref for cluster in clusters for host in cluster.hosts][:1],
        {vim.HostSystem: ("summary.hardware.uuid",)},
    )
    uuid = rows[0].properties.get("summary.hardware.uuid") if rows else None
    return str(uuid or about.name)


def _describe(cluster: Cluster) -> ClusterSeen:
    return ClusterSeen(
        cluster=cluster.id,
        name=cluster.name,
        hosts=len(cluster.hosts),
        cores=sum(host.cores for host in cluster.hosts),
        cpu_mhz=sum(host.cpu_mhz for host in cluster.hosts),
        memory_mib=round(sum(host.memory_mib for host in cluster.hosts)),
    )


def _warnings(
    api: Api, clusters: Sequence[Cluster], settings: VSphereSettings, templates: Sequence[Any], untold: bool
) -> Iterable[str]:
    about = api.content.about
    if api.on_host:
        yield (
            "This is a single ESXi host, not a vCenter: machines are made by copying the disks of a machine "
            "that is off, which takes longer and as much room as the disks."
        )
    if untold:
        yield "This server does not say what the account may do: missing privileges show only when they are needed."
    if parse_version(str(about.apiVersion)) < OLD_API:
        yield f"API version {about.apiVersion} is old: its vendor no longer supports it."
    for cluster in clusters:
        yield from _cluster_warnings(api, cluster, settings)
    found = {cluster.name for cluster in clusters}
    for name in settings.clusters:
        if name not in found:
            yield f"No cluster named {name!r} is visible to this account."
    if not templates and not api.on_host:
        yield "No template is visible; publish one before machines can be deployed."


def _cluster_warnings(api: Api, cluster: Cluster, settings: VSphereSettings) -> Iterable[str]:
    if not cluster.pools_possible:
        yield (
            f"DRS is off in cluster {cluster.name}: there is no resource pool, "
            "shares and limits are set on each machine alone."
        )
    if settings.network is not None and lacks_network(api, cluster, settings):
        yield f"Cluster {cluster.name} has no network named {settings.network!r}."
    if not cluster.hosts:
        yield f"Cluster {cluster.name} shows no hosts."
    if lacks_datastore(cluster, settings):
        wanted = f"named {settings.datastore!r}" if settings.datastore else "that all its hosts share"
        yield f"Cluster {cluster.name} has no usable datastore {wanted}."
