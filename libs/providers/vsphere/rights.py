"""What the account may not do: each privilege is asked on the objects where it is needed."""

from collections.abc import Iterable, Sequence
from typing import Any

from pyVmomi import vmodl

from libs.providers.base import MissingPrivilege
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.hardware import named_networks
from libs.providers.vsphere.inventory import Cluster, choose_datastore, find_folder, ref_id
from libs.providers.vsphere.overrides import has_attribute
from libs.providers.vsphere.privileges import CLUSTER, DATASTORE, FOLDER, HOST, NETWORK, ROOT, TEMPLATE, Place
from libs.providers.vsphere.settings import VSphereSettings


class CannotTell(Exception):
    """The server cannot say what an account may do: a single host need not know the question."""


def find_missing(
    api: Api, clusters: Sequence[Cluster], settings: VSphereSettings, templates: Sequence[Any]
) -> Iterable[MissingPrivilege]:
    """Privileges that are missing, with what they disable. Raises CannotTell where the server is not able to say."""
    stores = (choose_datastore(cluster, settings) for cluster in clusters)
    places: list[tuple[Place, Iterable[Any]]] = [
        (FOLDER, (_folder_of(api, cluster, settings) for cluster in clusters)),
        # A plain machine may serve as a template: its rights come from the folder above.
        (TEMPLATE, templates or [cluster.vm_folder for cluster in clusters]),
        (CLUSTER, (cluster.ref for cluster in clusters)),
        (DATASTORE, (store.ref for store in stores if store is not None)),
        (NETWORK, (net for cluster in clusters for net in named_networks(api, cluster, settings.network))),
        (ROOT, () if has_attribute(api) else (api.content.rootFolder,)),
    ]
    if api.on_host:
        places = [(HOST, (api.content.rootFolder,))]
    for place, entities in places:
        lacking = _lacking(api, place, list(_unique(entities).values()))
        yield from (MissingPrivilege(name, why) for name, why in place.privileges.items() if name in lacking)


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
    try:
        answers = api.content.authorizationManager.HasPrivilegeOnEntities(entities, session.key, names)
    except (vmodl.fault.NotSupported, vmodl.fault.NotImplemented, vmodl.fault.MethodNotFound):
        raise CannotTell from None
    denied = [
        {each.privId for each in answer.privAvailability or () if not each.isGranted} for answer in answers
    ]
    if place.one_is_enough:
        return set(names).intersection(*denied)
    return set().union(*denied)
