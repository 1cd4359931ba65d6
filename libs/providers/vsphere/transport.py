"""The wire to a vSphere API: TLS that is always verified, a pin that is checked before anything is sent, deadlines."""

import hmac
import io
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from xml.etree import ElementTree

from pyVmomi import SoapAdapter
from pyVmomi.SoapAdapter import SoapResponseDeserializer, SoapStubAdapter
from pyVmomi.VmomiSupport import versionMap

from libs.providers.vsphere.faults import BUSY, Busy, PinMismatch
from libs.providers.vsphere.settings import Endpoint

CONNECT_TIMEOUT_S = 10.0
THREADS = 8
IDLE_S = 60
# The oldest namespace first: everything Tides reads exists in 6.5, and every vCenter then answers in the same shape.
_NAMESPACES = ("6.5", "6.7", "7.0.0.0", "8.0.0.0", "9.0.0.0", "6.0", "5.5")


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe: a pinned SHA-256 (lower hex), else these CAs, else the system's."""

    ca_pem: str | None = None
    thumbprint: str | None = None

    def make_context(self) -> ssl.SSLContext:
        """A context of its own; only a pin, which is checked on every connection, replaces the CA check."""
        context = ssl.create_default_context(cadata=self.ca_pem)
        if self.thumbprint is not None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def parse_thumbprint(text: str | None) -> str | None:
    """A SHA-256 thumbprint with or without colons as lower hex. Raises ValueError with a sentence."""
    if text is None or not text.strip():
        return None
    plain = text.replace(":", "").replace(" ", "").strip().lower()
    if len(plain) != 64 or set(plain) - set("0123456789abcdef"):
        raise ValueError("a thumbprint is a SHA-256 in hexadecimal: 64 digits, with or without colons")
    return plain


class _TimedReader(io.RawIOBase):
    """What a connection says, read with what is left of the deadline: an answer that drips ends too."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, left: Callable[[], float]) -> None:
        self._raw = raw
        self._sock = sock
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(HTTPResponse):
    def __init__(self, sock: socket.socket, left: Callable[[], float], **arguments: Any) -> None:
        super().__init__(sock, **arguments)
        raw: Any = self.fp.detach()
        self.fp = io.BufferedReader(_TimedReader(raw, sock, left))

    def begin(self) -> None:
        super().begin()
        if self.status in BUSY:  # pyVmomi would forget for how long
            raise Busy(self.status, self.reason, self.getheader("Retry-After"))


class _CheckedConnection(HTTPSConnection):
    """Checks the pin whenever it connects, also when http.client reconnects by itself."""

    pin: str | None = None

    def connect(self) -> None:
        super().connect()
        if self.pin is None:
            return
        seen = sha256(self.sock.getpeercert(binary_form=True) or b"").hexdigest()
        if not hmac.compare_digest(seen, self.pin):
            self.close()
            raise PinMismatch(seen, self.pin)


class _Reader(SoapResponseDeserializer):
    """Lets go of an answer that was read.

    pyVmomi's reader and its parser hold one another and the answer, until a full collection finds thousands of objects
    a login: with twenty vCenters a stall of 0.1 s.
    """

    def Deserialize(self, response: Any, resultType: Any, nsMap: Any = None) -> Any:
        try:
            return super().Deserialize(response, resultType, nsMap)  # type: ignore[no-untyped-call]
        finally:
            vars(self).clear()


SoapAdapter.SoapResponseDeserializer = _Reader  # type: ignore[misc]


class Stub(SoapStubAdapter):
    """pyVmomi's stub with verified connections and a deadline per thread; it never repeats a call by itself."""

    def __init__(self, endpoint: Endpoint, trust: Trust, version: str) -> None:
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        super().__init__(  # type: ignore[no-untyped-call]
            host=host,
            port=endpoint.port,
            path=endpoint.path,
            version=version,
            poolSize=THREADS,
            connectionPoolTimeout=IDLE_S,
            sslContext=trust.make_context(),
        )
        self._trust = trust
        self._thread = threading.local()
        self.scheme = self._make_connection  # type: ignore[assignment]

    def _make_connection(self, **arguments: Any) -> HTTPSConnection:
        connection = _CheckedConnection(timeout=min(CONNECT_TIMEOUT_S, self._left()), **arguments)
        connection.pin = self._trust.thumbprint
        connection.response_class = partial(_TimedResponse, left=self._left)  # type: ignore[assignment]
        return connection

    def drop(self) -> None:
        """Close the idle connections."""
        self.DropConnections()  # type: ignore[no-untyped-call]

    def forget_session(self) -> None:
        """The next login begins a session of its own."""
        self.SetSessionId(None)  # type: ignore[no-untyped-call]

    @contextmanager
    def deadline(self, at: float) -> Iterator[None]:
        """Refuse to send anything from this thread after `at` (monotonic), so that nothing happens unseen later."""
        self._thread.at = at
        try:
            yield
        finally:
            self._thread.at = None

    def _left(self) -> float:
        at = getattr(self._thread, "at", None)
        if at is None:
            return CONNECT_TIMEOUT_S
        left = float(at) - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left

    def GetConnection(self) -> Any:
        left = self._left()
        connection = super().GetConnection()  # type: ignore[no-untyped-call]
        if connection.sock is not None and _is_stale(connection.sock):
            connection.close()
        connection.timeout = min(CONNECT_TIMEOUT_S, left)
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(left)
        return connection


def _is_stale(sock: socket.socket) -> bool:
    """An idle connection has nothing to say; one that has was closed by the other side."""
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def choose_version(endpoint: Endpoint, trust: Trust, deadline: float) -> str:
    """pyVmomi's name of the API version to speak, from the server's own list; the oldest where it has none."""
    stub = Stub(endpoint, trust, "vim.version.version9")
    with stub.deadline(deadline):
        connection = stub.GetConnection()
        try:
            connection.request("GET", f"{endpoint.path}/vimServiceVersions.xml")
            answer = connection.getresponse()
            if answer.status not in (200, 404):
                raise HTTPException(f"{answer.status} {answer.reason}")
            text = answer.read(1_000_000) if answer.status == 200 else b""
        finally:
            connection.close()
    try:
        offered = {element.text for element in ElementTree.fromstring(text).iter("version")}
    except ElementTree.ParseError:
        offered = set()
    known = (f"vim25/{name}" for name in _NAMESPACES if name in offered)
    return str(versionMap[next((name for name in known if name in versionMap), "vim25/5.5")])


def see_thumbprint(endpoint: Endpoint) -> str | None:
    """The SHA-256 of the certificate that the server shows; sends nothing to it. None when it cannot be had."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((endpoint.host, endpoint.port), CONNECT_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=endpoint.host) as sock,
        ):
            certificate = sock.getpeercert(binary_form=True)
    except OSError:
        return None
    return sha256(certificate).hexdigest() if certificate else None
