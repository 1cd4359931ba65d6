"""What a real vCenter refuses and vcsim lets pass."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from xml.sax.saxutils import escape

from tests.faultproxy.paths import find_unknown
from tests.faultproxy.privileges import needed
from tests.faultproxy.rules import SoapFault, no_permission
from tests.faultproxy.texts import first, ref_in

MOST_METRICS = 256
CHANGE_VERSION = b"config.changeVersion"
Ask = Callable[[str, str], Awaitable[str]]


class Strictness:
    """Refuses; `ask` puts a SOAP body with a session's cookie to vcsim, `holder` tells who has taken a name."""

    def __init__(self, ask: Ask, holder: Callable[[str], str | None]) -> None:
        self._ask = ask
        self._holder = holder
        self._versions: Counter[str] = Counter()
        self.drs_off: Callable[[], bool] = lambda: False
        """Whether every cluster says so, whatever vcsim knows."""
        self.denied: Counter[str] = Counter()
        """Refusals by privilege."""
        self.powered_off: set[str] = set()
        """Of the machines that were last asked for values."""
        self.known_counters: set[str] = set()
        """Numbers as texts; empty: vcsim is asked."""

    async def refuse(self, method: str, body: str, cookie: str) -> SoapFault | None:
        """The fault that a real vCenter answers with; None where it obeys."""
        check = {
            "CloneVM_Task": self._refuse_clone,
            "CreateFilter": self._refuse_path,
            "CreateResourcePool": self._refuse_pool,
            "RetrievePropertiesEx": self._refuse_path,
            "PowerOnVM_Task": self._refuse_power_on,
            "SuspendVM_Task": self._refuse_suspend,
            "MarkAsTemplate": self._refuse_mark,
            "ReconfigVM_Task": self._refuse_reconfigure,
            "QueryPerf": self._refuse_query,
            "UpdateConfig": self._refuse_update,
        }.get(method)
        return await check(body, cookie) if check is not None else None

    def note_edit(self, body: str) -> None:
        """Somebody else changed the object that a call is about."""
        found = ref_in(body, "_this")
        if found is not None:
            self._versions[found[1]] += 1

    def stamp(self, text: str) -> str:
        """An inventory in which every resource pool tells its change version, which vcsim does not keep."""
        return re.sub(
            r'(<obj [^>]*type="ResourcePool"[^>]*>([^<]*)</obj>)',
            lambda each: (
                f"{each[1]}<propSet><name>config.changeVersion</name>"
                f'<val xsi:type="xsd:string">{self._versions[each[2]]}</val></propSet>'
            ),
            text,
        )

    async def refuse_unprivileged(
        self, method: str, body: str, cookie: str, lacking: set[str]
    ) -> SoapFault | None:
        """NoPermission for the first privilege that the account lacks and the call needs."""
        source = ref_in(body, "_this") if method == "CloneVM_Task" else None
        is_template = source is not None and "true" in (
            await self._read(source, "config.template", cookie) or ""
        )
        found = next((name for name in needed(method, body, is_template) if name in lacking), None)
        if found is None:
            return None
        self.denied[found] += 1
        return no_permission(found)

    async def _refuse_path(self, body: str, cookie: str) -> SoapFault | None:
        path = find_unknown(body)
        detail = f"<name>{escape(path or '')}</name>"
        return None if path is None else SoapFault("InvalidProperty", "no such property", detail)

    async def _refuse_pool(self, body: str, cookie: str) -> SoapFault | None:
        """A cluster whose DRS is off has no pools but its own."""
        parent = ref_in(body, "_this")
        owner = await self._read(parent, "owner", cookie) if parent is not None else None
        cluster = first(r'type="ClusterComputeResource"[^>]*>([^<]+)<', owner or "")
        if cluster is None:
            return None
        place = ("ClusterComputeResource", cluster)
        is_on = "true" in (await self._read(place, "configurationEx.drsConfig.enabled", cookie) or "")
        if is_on and not self.drs_off():
            return None
        return SoapFault("NotSupported", "The operation is not supported on the object.")

    async def _refuse_update(self, body: str, cookie: str) -> SoapFault | None:
        """A pool that was changed since it was read is not overwritten; who names no version overwrites all."""
        pool, version = ref_in(body, "_this"), first(r"<changeVersion[^>]*>([^<]*)<", body)
        if pool is None:
            return None
        if version is not None and version != str(self._versions[pool[1]]):
            return SoapFault("ConcurrentAccess", "The object was changed in the meantime.")
        self._versions[pool[1]] += 1
        return None

    async def _refuse_clone(self, body: str, cookie: str) -> SoapFault | None:
        if "createNewChildDiskBacking" in body and ref_in(body, "snapshot") is None:
            # Disks are only shared with what can no longer change.
            detail = "<invalidProperty>spec.snapshot</invalidProperty>"
            return SoapFault(
                "InvalidArgument", "A specified parameter was not correct: spec.snapshot", detail
            )
        for tag in ("_this", "folder", "pool", "host", "datastore"):
            ref = ref_in(body, tag)
            if ref is not None and await self._read(ref, "name", cookie) is None:
                kind, value = ref
                return SoapFault("ManagedObjectNotFound", "gone", f'<obj type="{kind}">{escape(value)}</obj>')
        folder, name = ref_in(body, "folder"), first(r"<name[^>]*>([^<]*)</name>", body) or ""
        if folder is None:
            return SoapFault("InvalidArgument", "no folder", "<invalidProperty>folder</invalidProperty>")
        found = await self._ask(
            '<FindChild xmlns="urn:vim25"><_this type="SearchIndex">SearchIndex</_this>'
            f'<entity type="Folder">{escape(folder[1])}</entity><name>{name}</name></FindChild>',
            cookie,
        )
        taken = self._holder(name) or first(r"<returnval[^>]*>([^<]+)<", found)
        if taken is None:
            return None
        detail = f'<name>{name}</name><object type="VirtualMachine">{taken}</object>'
        return SoapFault("DuplicateName", f"The name '{name}' already exists.", detail)

    async def _refuse_power_on(self, body: str, cookie: str) -> SoapFault | None:
        """Overhead memory must be reserved somewhere: in the pool, or by what the pool may borrow."""
        vm = ref_in(body, "_this")
        pool = first(r">([^<]+)<", await self._read(vm, "resourcePool", cookie) or "") if vm else None
        if pool is None:
            return None
        ref = ("ResourcePool", pool)
        expandable = await self._read(ref, "config.memoryAllocation.expandableReservation", cookie) or ""
        reserved = first(
            r">(\d+)<", await self._read(ref, "config.memoryAllocation.reservation", cookie) or ""
        )
        if "false" not in expandable or (reserved or "0") != "0":
            return None
        return SoapFault(
            "InsufficientMemoryResourcesFault",
            "The available memory resources in the parent resource pool are insufficient for the operation.",
            "<unreserved>0</unreserved><requested>50</requested>",
        )

    async def _refuse_query(self, body: str, cookie: str) -> SoapFault | None:
        """More metrics than `config.vpxd.stats.maxQueryMetrics` usually allows; counters and entities that are none."""
        if len(re.findall(r"<metricId[ >]", body)) > MOST_METRICS:
            return _wrong("querySpec.size")
        known = await self._counters(ref_in(body, "_this") or ("", ""), cookie)
        if not known.issuperset(re.findall(r"<counterId[^>]*>(\d+)<", body)):
            return _wrong("querySpec[0].metricId")
        gone = await self._find_gone(re.findall(r'<entity [^>]*type="(\w+)"[^>]*>([^<]+)<', body), cookie)
        if gone is not None:
            return SoapFault(
                "ManagedObjectNotFound", "gone", f'<obj type="{gone[0]}">{escape(gone[1])}</obj>'
            )
        return None

    async def _counters(self, manager: tuple[str, str], cookie: str) -> set[str]:
        if not self.known_counters:
            told = await self._read(manager, "perfCounter", cookie) or ""
            self.known_counters = set(re.findall(r"<key>(\d+)</key>", told))
        return self.known_counters

    async def _find_gone(self, entities: list[tuple[str, str]], cookie: str) -> tuple[str, str] | None:
        """One of these that does not exist any more; vcsim says so when it is asked for a property."""
        kinds = "".join(
            f"<propSet><type>{kind}</type><pathSet>runtime.powerState</pathSet></propSet>"
            for kind in sorted({kind for kind, _ in entities})
        )
        objects = "".join(
            f'<objectSet><obj type="{kind}">{escape(value)}</obj></objectSet>'
            for kind, value in set(entities)
        )
        answer = await self._ask(
            '<RetrievePropertiesEx xmlns="urn:vim25"><_this type="PropertyCollector">propertyCollector</_this><specSet>'
            f"{kinds}{objects}</specSet><options/></RetrievePropertiesEx>",
            cookie,
        )
        self.powered_off = set(
            re.findall(
                r'<obj type="VirtualMachine">([^<]+)</obj><propSet><name>runtime.powerState</name>'
                r"<val[^>]*>(?:poweredOff|suspended)<",
                answer,
            )
        )
        if "ManagedObjectNotFoundFault" not in answer:
            return None
        lost = first(r"<obj[^>]*>([^<]+)</obj>", answer)
        return next((entity for entity in entities if entity[1] == lost), entities[0])

    async def _refuse_suspend(self, body: str, cookie: str) -> SoapFault | None:
        return await self._unless_powered(body, cookie, "poweredOn")

    async def _refuse_mark(self, body: str, cookie: str) -> SoapFault | None:
        """A template is a machine that is off."""
        return await self._unless_powered(body, cookie, "poweredOff")

    async def _refuse_reconfigure(self, body: str, cookie: str) -> SoapFault | None:
        """The number of CPUs and the size of memory only change while a machine is off."""
        if "<numCPUs" in body or "<memoryMB" in body:
            return await self._unless_powered(body, cookie, "poweredOff")
        return None

    async def _unless_powered(self, body: str, cookie: str, state: str) -> SoapFault | None:
        vm = ref_in(body, "_this")
        now = (
            first(r">(powered\w+|suspended)<", await self._read(vm, "runtime.powerState", cookie) or "")
            if vm
            else None
        )
        if now is None or now == state:
            return None
        detail = f"<requestedState>{state}</requestedState><existingState>{now}</existingState>"
        return SoapFault(
            "InvalidPowerState", "The attempted operation cannot be performed in the current state", detail
        )

    async def _read(self, ref: tuple[str, str], path: str, cookie: str) -> str | None:
        """The XML of one property's value; None when the object does not exist."""
        kind, value = ref
        answer = await self._ask(
            '<RetrievePropertiesEx xmlns="urn:vim25"><_this type="PropertyCollector">propertyCollector</_this><specSet>'
            f"<propSet><type>{kind}</type><pathSet>{path}</pathSet></propSet>"
            f'<objectSet><obj type="{kind}">{escape(value)}</obj></objectSet></specSet>'
            "<options/></RetrievePropertiesEx>",
            cookie,
        )
        return first(r"(<val.*?</val>)", answer)


def _wrong(parameter: str) -> SoapFault:
    detail = f"<invalidProperty>{parameter}</invalidProperty>"
    return SoapFault("InvalidArgument", f"A specified parameter was not correct: {parameter}", detail)
