"""What goes wrong, and how vSphere says no."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from tests.faultproxy.sending import Trickle
from tests.faultproxy.texts import ENVELOPE


@dataclass(frozen=True, slots=True)
class SoapFault:
    """A fault as vSphere sends it; `detail` is XML inside the fault's element."""

    kind: str
    text: str = ""
    detail: str = ""

    def render(self) -> str:
        """The body of the answer."""
        return ENVELOPE.format(
            "<soapenv:Fault><faultcode>ServerFaultCode</faultcode>"
            f"<faultstring>{escape(self.text)}</faultstring><detail>"
            f'<{self.kind}Fault xmlns="urn:vim25" xsi:type="{self.kind}">{self.detail}</{self.kind}Fault>'
            "</detail></soapenv:Fault>"
        )


def no_permission(privilege: str) -> SoapFault:
    """The account lacks this privilege."""
    detail = f'<object type="Folder">group-d1</object><privilegeId>{privilege}</privilegeId>'
    return SoapFault("NoPermission", "Permission to perform this operation was denied.", detail)


@dataclass(frozen=True, slots=True)
class Late:
    """A task that runs for so long before anything happens; with a fault it ends in that instead."""

    seconds: float
    cancelable: bool = True
    fault: SoapFault | None = None


@dataclass(slots=True)
class Rules:
    """What goes wrong, by SOAP method ("*" is any); counted ones run out. Change them at any time."""

    delay_s: dict[str, float] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    """Answer with this HTTP status, without forwarding."""
    retry_after: str | None = None
    """The header that goes with such a status."""
    late: dict[str, Late] = field(default_factory=dict)
    """Tasks that take their time."""
    truncate: dict[str, int] = field(default_factory=dict)
    """Answers of so many bytes that are said to be whole."""
    trickle: dict[str, Trickle] = field(default_factory=dict)
    """Answers that come slowly."""
    break_off: Counter[str] = field(default_factory=Counter)
    """So many calls happen, and the connection goes in the middle of the answer."""
    expiry: random.Random | None = None
    """With it, `expiry_share` of all calls find that their session has just ended."""
    expiry_share: float = 0.1
    most_sessions: int | None = None
    """Who logs in beyond so many sessions is told 503, as by a vCenter whose `maxSessionCount` is reached."""
    reset_before: Counter[str] = field(default_factory=Counter)
    """So many calls are cut off before anything has happened."""
    reset_after: Counter[str] = field(default_factory=Counter)
    """So many calls happen, and the answer is lost."""
    edits_before: Counter[str] = field(default_factory=Counter)
    """So many calls come just after somebody else has changed the object."""
    faults: dict[str, SoapFault] = field(default_factory=dict)
    lacking: set[str] = field(default_factory=set)
    """Privileges that HasPrivilegeOnEntities denies."""
    hidden: set[str] = field(default_factory=set)
    """Objects by id that RetrievePropertiesEx leaves out, as for an account that may not see them."""
    is_stale: bool = False
    """RetrievePropertiesEx answers as it did when it was last asked the same before."""
    page_size: int | None = None
    """RetrievePropertiesEx answers in pages of so many objects."""
    csv: bool = False
    """QueryPerf answers in the CSV format when it is asked to, as a real one does."""
    mutate: Callable[[str, str], bytes] | None = None
    """What a method's answer is turned into."""
    drs_off: bool = False
    """Every cluster says that DRS is switched off."""
    strict: bool = True
    """Refuse what a real vCenter refuses and vcsim lets pass."""
    esxi: bool = False
    """Behind it is one ESXi host: what only a vCenter can do is refused."""
    free_licence: bool = False
    """The host has the free licence, under which its API only reads."""
    down: bool = False
    """Nothing is answered at all."""

    def heal(self) -> None:
        """Everything works again."""
        fresh = Rules(page_size=self.page_size, strict=self.strict, esxi=self.esxi)
        for name in self.__slots__:
            setattr(self, name, getattr(fresh, name))
