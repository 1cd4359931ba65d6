"""What a vSphere target is, what the account may not do there, and what its operator should know."""

from collections.abc import Iterable, Sequence
from typing import Any

from pyVmomi import vim

from libs.providers.base import ClusterSeen, MissingPrivilege, Validation
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import (
    Cluster,
    choose_datastore,
    find_folder,
    read_clusters,
    read_related,
    ref_id,
)
from libs.providers.vsphere.overrides import has_attribute
from libs.providers.vsphere.privileges import CLUSTER, DATASTORE, FOLDER, NETWORK, ROOT, TEMPLATE, Place
from libs.providers.vsphere.settings import VSphereSettings
from libs.providers.vsphere.templates import template_refs

OLD_API = (7, 0)


def validate(api: Api, settings: VSphereSettings) -> Validation:
    """Facts, missing privileges by name with what they disable, and warnings."""
    about = api.content.about
    clusters = read_clusters(api, settings)
    templates = template_refs(api, settings)
    return Validation(
        product=str(about.fullName or about.name),
        api_version=str(about.apiVersion),
        instance_id=str(about.instanceUuid or about.name),
        clusters=tuple(_describe(cluster) for cluster in clusters),
        missing=tuple(_find_missing(api, clusters, settings, templates)),
        warnings=tuple(_warnings(api, clusters, settings, templates)),
    )


def _describe(cluster: Cluster) -> ClusterSeen:
    return ClusterSeen(
        cluster=cluster.id,
        name=cluster.name,
        hosts=len(cluster.hosts),
        cores=sum(host.cores for host in cluster.hosts),
        cpu_mhz=sum(host.cpu_mhz for host in cluster.hosts),
        memory_mib=round(sum(host.memory_mib for host in cluster.hosts)),
    )


def _find_missing(
    api: Api, clusters: Sequence[Cluster], settings: VSphereSettings, templates: Sequence[Any]
) -> Iterable[MissingPrivilege]:
    stores = (choose_datastore(cluster, settings) for cluster in clusters)
    places: list[tuple[Place, Iterable[Any]]] = [
        (FOLDER, (_folder_of(api, cluster, settings) for cluster in clusters)),
        # A plain machine may serve as a template: its rights come from the folder above.
        (TEMPLATE, templates or [cluster.vm_folder for cluster in clusters]),
        (CLUSTER, (cluster.ref for cluster in clusters)),
        (DATASTORE, (store.ref for store in stores if store is not None)),
        (NETWORK, (net for cluster in clusters for net in _named_networks(api, cluster, settings))),
        (ROOT, () if has_attribute(api) else (api.content.rootFolder,)),
    ]
    for place, entities in places:
        lacking = _lacking(api, place, list(_unique(entities).values()))
        yield from (MissingPrivilege(name, why) for name, why in place.privileges.items() if name in lacking)


def _named_networks(api: Api, cluster: Cluster, settings: VSphereSettings) -> list[Any]:
    if settings.network is None:
        return []
    paths = {vim.Network: ("name",), vim.dvs.DistributedVirtualPortgroup: ("name",)}
    rows = read_related(api, "inventory", [cluster.ref], "network", paths)
    return [row.ref for row in rows if row.properties.get("name") == settings.network]


def _folder_of(api: Api, cluster: Cluster, settings: VSphereSettings) -> Any:
    return find_folder(api, cluster.vm_folder, settings.folder) or cluster.vm_folder


def _unique(refs: Iterable[Any]) -> dict[str, Any]:
    return {ref_id(ref): ref for ref in refs}


def _lacking(api: Api, place: Place, entities: list[Any]) -> set[str]:
    """Privileges that are missing on one of the entities; on all of them, where one is enough."""
    if not entities:
        return set()
    names = list(place.privileges)
    session = api.content.sessionManager.currentSession
    if session is None:
        return set(names)
    answers = api.content.authorizationManager.HasPrivilegeOnEntities(entities, session.key, names)
    denied = [
        {each.privId for each in answer.privAvailability or () if not each.isGranted} for answer in answers
    ]
    if place.one_is_enough:
        return set(names).intersection(*denied)
    return set().union(*denied)


def _warnings(
    api: Api, clusters: Sequence[Cluster], settings: VSphereSettings, templates: Sequence[Any]
) -> Iterable[str]:
    about = api.content.about
    if str(about.apiType) == "HostAgent":
        yield "This is a single ESXi host, not a vCenter: it can be observed, but machines cannot be cloned on it."
    if _version(str(about.apiVersion)) < OLD_API:
        yield f"API version {about.apiVersion} is old: its vendor no longer supports it."
    if settings.network is None:
        yield (
            "No network is named: no machine is made before the setting `network` names a port group of their own, "
            "so that they reach nothing but what you choose."
        )
    for cluster in clusters:
        yield from _cluster_warnings(api, cluster, settings)
    found = {cluster.name for cluster in clusters}
    for name in settings.clusters:
        if name not in found:
            yield f"No cluster named {name!r} is visible to this account."
    if not templates:
        yield "No template is visible; publish one before machines can be deployed."


def _cluster_warnings(api: Api, cluster: Cluster, settings: VSphereSettings) -> Iterable[str]:
    if not cluster.pools_possible:
        yield (
            f"DRS is off in cluster {cluster.name}: there is no resource pool, "
            "shares and limits are set on each machine alone."
        )
    if settings.network is not None and not _named_networks(api, cluster, settings):
        yield f"Cluster {cluster.name} has no network named {settings.network!r}."
    if not cluster.hosts:
        yield f"Cluster {cluster.name} shows no hosts."
    if choose_datastore(cluster, settings) is None:
        wanted = f"named {settings.datastore!r}" if settings.datastore else "that all its hosts share"
        yield f"Cluster {cluster.name} has no usable datastore {wanted}."


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in text.split(".")[:2])
