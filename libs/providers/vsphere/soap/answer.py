"""Answers while they arrive: a pull parser that hands out each item and forgets it, and believes nothing."""

from collections.abc import Callable
from http.client import HTTPException
from typing import Any, Protocol

from lxml import etree

from libs.providers.vsphere.soap.scan import MOST_HEAD, SHAPES, Shape

MOST_BYTES = 32 * 1024 * 1024
"""Of one answer or page; what is longer is no answer of a vCenter to what we ask."""
VIM = "{urn:vim25}"
_SOAP = "{http://schemas.xmlsoap.org/soap/envelope/}"
XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_ENVELOPE, _BODY, _FAULT = f"{_SOAP}Envelope", f"{_SOAP}Body", f"{_SOAP}Fault"
_CHUNK = 64 * 1024
_LONGEST_ITEM = 256 * 1024

Element = Any
"""An lxml element, which has no type of its own."""


class Garbled(HTTPException):
    """The answer is not what a vSphere API says: cut short, too long, malformed, or about something else."""


class FaultSeen(Exception):
    """The answer is a SOAP fault; `element` is its XML."""

    def __init__(self, element: Element) -> None:
        super().__init__("a SOAP fault")
        self.element = element


class Taker(Protocol):
    """What an answer's items go to."""

    def take(self, element: Element) -> None:
        """One item, as XML."""

    def take_run(self, text: str) -> None:
        """Some items in the form that `scan` knows."""


class Answer:
    """The answer to one call: bytes go in, its items come out in their order.

    Feed bytes, then `close`: only then is the answer known to be whole. Raises Garbled or FaultSeen.
    """

    def __init__(self, method: str, item: str, take: Callable[[Element], None]) -> None:
        self._method = method
        self._response = f"{VIM}{method}Response"
        self._deep = item == "objects"
        self._items = {f"{VIM}{item}", f"{VIM}token"} if self._deep else {f"{VIM}{item}"}
        self._take = take
        self._holder: Element = None
        self._opened: Element = None
        self._taken = 0
        self._bytes = 0
        # UTF-8 whatever the answer claims to be; libxml2 itself refuses a depth above 256 and amplification.
        self._parser: Any = etree.XMLPullParser(
            events=("start", "end"),
            tag=[_ENVELOPE, _FAULT, self._response, *self._items],
            encoding="utf-8",
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
        )
        self._events = self._parser.read_events()

    @property
    def untouched(self) -> bool:
        """Whether nothing was fed yet."""
        return self._bytes == 0

    def feed(self, chunk: bytes) -> None:
        """The next bytes, in any portion."""
        self._count(chunk)
        self._parse(chunk)

    def _count(self, chunk: bytes) -> None:
        self._bytes += len(chunk)
        if self._bytes > MOST_BYTES:
            raise Garbled(f"the answer to {self._method} is longer than {MOST_BYTES} bytes")

    def _parse(self, chunk: bytes) -> None:
        try:
            # In small pieces, so that what was read is forgotten before the next is there.
            for start in range(0, len(chunk), _CHUNK):
                self._parser.feed(chunk[start : start + _CHUNK])
                self._read()
        except etree.XMLSyntaxError as error:
            raise Garbled(f"the answer to {self._method} is no XML: {error.msg}") from None

    def close(self) -> None:
        """The end of the bytes. Raises Garbled unless it was the whole answer."""
        try:
            self._parser.close()
            self._read()
        except etree.XMLSyntaxError as error:
            raise Garbled(f"the answer to {self._method} is cut short: {error.msg}") from None
        if self._opened is None:
            raise Garbled(f"this is no answer to {self._method}")

    def _read(self) -> None:
        items = self._items
        for event, element in self._events:
            if event == "end" and element.tag in items:
                self._check_place(element)
                self._taken += 1
                self._take(element)
                _forget(element)
            elif event == "start" and element.tag not in items:
                self._begin(element)
            elif event == "end" and element.tag == _FAULT:
                raise FaultSeen(element)

    def _begin(self, element: Element) -> None:
        """An envelope, a fault or the response begins: each in its place, once, and no document type before it."""
        parent = element.getparent()
        if element.tag == _ENVELOPE:
            if parent is not None or element.getroottree().docinfo.doctype:
                raise Garbled(f"the answer to {self._method} has a document type or a strange root")
            return
        above = None if parent is None else parent.getparent()
        if parent is None or parent.tag != _BODY or above is None or above.tag != _ENVELOPE:
            raise Garbled(f"the answer to {self._method} is not in a SOAP envelope")
        if element.tag == self._response:
            if self._opened is not None:
                raise Garbled(f"two answers to one {self._method}")
            self._opened = element
            self._holder = None if self._deep else element

    def _check_place(self, element: Element) -> None:
        parent = element.getparent()
        if parent is self._holder and parent is not None:
            return
        first = self._deep and self._holder is None and self._opened is not None and parent is not None
        # The first list alone holds items: a second one would hold another answer.
        if not first or parent.getparent() is not self._opened or parent.getprevious() is not None:
            raise Garbled(f"the answer to {self._method} has {element.tag} where none belongs")
        self._holder = parent


class ScannedAnswer(Answer):
    """An answer of many items, most of them in the form that `scan` knows; those never become a tree."""

    def __init__(self, method: str, item: str, taker: Taker) -> None:
        super().__init__(method, item, taker.take)
        self._shape: Shape | None = SHAPES[method]
        self._take_run = taker.take_run
        self._waiting = b""
        self._inside = False

    def feed(self, chunk: bytes) -> None:
        """The next bytes, in any portion."""
        self._count(chunk)
        if self._shape is None:
            self._parse(chunk)
            return
        known = len(self._waiting)
        self._waiting += chunk
        # Looked at again only when an item may have ended: what drips in byte by byte costs no more than its bytes.
        news = max(0, known - len(self._shape.closing))
        if (
            self._inside
            and self._waiting.find(self._shape.closing, news) < 0
            and len(self._waiting) < _LONGEST_ITEM
        ):
            return
        if not self._inside:
            self._begin_inside(self._shape)
        while self._inside and self._scan(self._shape):
            pass

    def close(self) -> None:
        """The end of the bytes. Raises Garbled unless it was the whole answer."""
        self._go_the_long_way()
        super().close()

    def _begin_inside(self, shape: Shape) -> None:
        """Up to where the first item belongs."""
        head = shape.head.match(self._waiting)
        # What follows may still belong to the head until an item or the end of the list is seen.
        if head is not None and self._waiting[head.end() : head.end() + 2] not in (b"", b"<"):
            self._parse(self._waiting[: head.end()])
            self._waiting = self._waiting[head.end() :]
            self._inside = True
        elif len(self._waiting) > MOST_HEAD:
            self._go_the_long_way()

    def _scan(self, shape: Shape) -> bool:
        """Take a run of items, or one odd item; False when more bytes are needed, or no items are left."""
        waiting = self._waiting
        run = shape.run.match(waiting)
        end = 0 if run is None else run.end()
        if end:
            try:
                self._take_run(waiting[:end].decode())
            except UnicodeDecodeError:
                raise Garbled(f"the answer to {self._method} is not in UTF-8") from None
            self._waiting = waiting = waiting[end:]
        if not waiting.startswith(shape.opening[: len(waiting)]) or len(waiting) > _LONGEST_ITEM:
            self._go_the_long_way()
            return False
        odd = waiting.find(shape.closing) + len(shape.closing)
        if odd < len(shape.closing):
            return False
        taken = self._taken
        self._parse(waiting[:odd])
        self._waiting = waiting[odd:]
        if self._taken != taken + 1:  # that was not the end of the item after all
            self._go_the_long_way()
        return self._inside

    def _go_the_long_way(self) -> None:
        """All that comes from here on is the parser's."""
        waiting, self._waiting = self._waiting, b""
        self._shape, self._inside = None, False
        self._parse(waiting)


def _forget(element: Element) -> None:
    """Free what was read. The element itself stays until the next one: the parser may still append to it."""
    element.clear(keep_tail=True)
    previous = element.getprevious()
    if previous is not None:
        element.getparent().remove(previous)
