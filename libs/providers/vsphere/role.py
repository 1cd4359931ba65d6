"""The commands that make the least an account needs: roles per kind of object, and permissions with them.

Folder and custom attribute are made beforehand, so nothing is granted at the root of the vCenter.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from libs.providers.vsphere.privileges import (
    ATTRIBUTE,
    CLUSTER,
    DATASTORE,
    FOLDER,
    HOST,
    NETWORK,
    PLACES,
    TEMPLATE,
    Place,
)

READ_ONLY = "ReadOnly"


@dataclass(frozen=True, slots=True)
class Scope:
    """Names as the vCenter shows them."""

    principal: str
    """Who gets the permissions, `DOMAIN\\user` or `user@domain`."""
    datacenter: str
    clusters: Sequence[str]
    datastores: Sequence[str]
    networks: Sequence[str]
    templates: Sequence[str]
    """Paths below the datacenter's VM folder."""
    folder: str = "tides"
    role: str = "Tides"

    def objects(self, place: Place) -> Sequence[tuple[str, str]]:
        """Inventory folder and name of each object that a permission is set on."""
        found = {
            FOLDER.key: ("vm", [self.folder]),
            TEMPLATE.key: ("vm", self.templates),
            CLUSTER.key: ("host", self.clusters),
            DATASTORE.key: ("datastore", self.datastores),
            NETWORK.key: ("network", self.networks),
        }
        kind, names = found.get(place.key, ("", []))
        return [(kind, name) for name in names]


def list_privileges() -> list[tuple[str, str, str]]:
    """Where, privilege, what is impossible without it; for every place, last a single ESXi host."""
    return [(place.key, name, why) for place in (*PLACES, HOST) for name, why in place.privileges.items()]


def govc_lines(scope: Scope) -> list[str]:
    """Commands of govc for a POSIX shell."""
    who = f"-principal={scope.principal}"
    top = f"/{scope.datacenter}"
    lines = [
        ["govc", "folder.create", f"{top}/vm/{scope.folder}"],
        ["govc", "fields.add", "-type", "VirtualMachine", ATTRIBUTE],
        ["govc", "permissions.set", who, f"-role={READ_ONLY}", "-propagate=true", top],
    ]
    for place in _used(scope):
        role = _role_name(scope, place)
        lines.append(["govc", "role.create", role, *place.privileges])
        reach = f"-propagate={str(place.propagates).lower()}"
        lines += [
            ["govc", "permissions.set", who, f"-role={role}", reach, f"{top}/{kind}/{name}"]
            for kind, name in scope.objects(place)
        ]
    return [shlex.join(line) for line in lines]


def powercli_lines(scope: Scope) -> list[str]:
    """Commands of VMware PowerCLI, after Connect-VIServer."""
    lines = [
        f"$dc = Get-Datacenter -Name {_quote(scope.datacenter)}",
        f"$folder = New-Folder -Name {_quote(scope.folder)} -Location (Get-Folder -Type VM -Name vm -Location $dc)",
        f"New-CustomAttribute -Name {_quote(ATTRIBUTE)} -TargetType VirtualMachine",
        _permit(scope, "$dc", f"(Get-VIRole -Name {READ_ONLY})", True),
    ]
    for place in _used(scope):
        names = ",".join(map(_quote, place.privileges))
        variable = f"${place.key}Role"
        lines.append(
            f"{variable} = New-VIRole -Name {_quote(_role_name(scope, place))}"
            f" -Privilege (Get-VIPrivilege -Id {names})"
        )
        lines += [
            _permit(scope, _FINDS[place.key](name), variable, place.propagates)
            for _, name in scope.objects(place)
        ]
    return lines


_FINDS: dict[str, Callable[[str], str]] = {
    FOLDER.key: lambda _: "$folder",
    TEMPLATE.key: lambda path: f"(Get-Template -Name {_quote(path.rpartition('/')[2])} -Location $dc)",
    CLUSTER.key: lambda name: f"(Get-Cluster -Name {_quote(name)} -Location $dc)",
    DATASTORE.key: lambda name: f"(Get-Datastore -Name {_quote(name)} -Location $dc)",
    NETWORK.key: lambda name: f"(Get-VDPortgroup -Name {_quote(name)})",
}


def _permit(scope: Scope, entity: str, role: str, propagates: bool) -> str:
    who = _quote(scope.principal)
    return f"New-VIPermission -Entity {entity} -Principal {who} -Role {role} -Propagate:${str(propagates).lower()}"


def _used(scope: Scope) -> list[Place]:
    return [place for place in PLACES if scope.objects(place)]


def _role_name(scope: Scope, place: Place) -> str:
    return f"{scope.role}-{place.key}"


def _quote(text: str) -> str:
    """A literal of PowerShell, whose typographic quotes end a literal too."""
    return "'" + "".join(one * 2 if one in "'\u2018\u2019\u201a\u201b" else one for one in text) + "'"
