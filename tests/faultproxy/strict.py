"""What a real vCenter refuses and vcsim lets pass."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from xml.sax.saxutils import escape

from tests.faultproxy.rules import SoapFault
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

    async def refuse(self, method: str, body: str, cookie: str) -> SoapFault | None:
        """The fault that a real vCenter answers with; None where it obeys."""
        check = {
            "CloneVM_Task": self._refuse_clone,
            "PowerOnVM_Task": self._refuse_power_on,
            "SuspendVM_Task": self._refuse_suspend,
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
        """More metrics than `config.vpxd.stats.maxQueryMetrics` usually allows."""
        if len(re.findall(r"<metricId[ >]", body)) <= MOST_METRICS:
            return None
        detail = "<invalidProperty>querySpec.size</invalidProperty>"
        return SoapFault("InvalidArgument", "A specified parameter was not correct: querySpec.size", detail)

    async def _refuse_suspend(self, body: str, cookie: str) -> SoapFault | None:
        return await self._unless_powered(body, cookie, "poweredOn")

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
