"""The wire of the hot path: aiohttp with the driver's own trust, an answer read as it arrives, bounds on everything."""

import ssl
from http.client import HTTPException

import aiohttp

from libs.providers.vsphere import transport
from libs.providers.vsphere.faults import BUSY, Busy, PinMismatch, Refused
from libs.providers.vsphere.settings import Endpoint
from libs.providers.vsphere.soap.answer import Answer, FaultSeen, Garbled
from libs.providers.vsphere.soap.envelope import Request
from libs.providers.vsphere.soap.faults import read_fault
from libs.providers.vsphere.soap.pace import MOST

CALL_TIMEOUT_S = 20.0
_FAULT_STATUS = 500


class Wire:
    """Connections to one API. Only reads go over it: a connection that died while idle is replaced once."""

    def __init__(self, endpoint: Endpoint, trust: transport.Trust) -> None:
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        self._url = f"https://{host}:{endpoint.port}{endpoint.path}"
        self._trust = trust
        self._http: aiohttp.ClientSession | None = None
        self._believed: aiohttp.Fingerprint | ssl.SSLContext | None = None
        self.calls = 0
        self.bytes_read = 0

    def prepare(self) -> None:
        """Read whom to believe; blocking, since the system's authorities are many."""
        if self._believed is None:
            # A pin is checked on every connection before anything is sent, as pyVmomi's connections do it.
            pin = self._trust.thumbprint
            self._believed = aiohttp.Fingerprint(bytes.fromhex(pin)) if pin else self._trust.make_context()

    def _open(self) -> aiohttp.ClientSession:
        if self._http is None:
            self.prepare()
            assert self._believed is not None
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._believed, limit=MOST, keepalive_timeout=transport.IDLE_S
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S, sock_connect=transport.CONNECT_TIMEOUT_S),
            )
        return self._http

    async def ask(self, request: Request, answer: Answer, cookie: str, action: str) -> None:
        """Send one read and feed its answer. Raises Refused for a fault, else what went wrong with the wire."""
        headers = {
            "Cookie": cookie,
            "SOAPAction": action,
            "Content-Type": "text/xml; charset=UTF-8",
            "Accept-Encoding": "identity",
        }
        try:
            try:
                await self._exchange(request, answer, headers)
            except aiohttp.ServerDisconnectedError:
                if not answer.untouched:
                    raise
                await self._exchange(request, answer, headers)
        except FaultSeen as seen:
            raise Refused(read_fault(seen.element)) from None
        except aiohttp.ServerFingerprintMismatch as error:
            raise PinMismatch(error.got.hex(), error.expected.hex()) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise _certificate_error(error) from None
        except aiohttp.ClientError as error:
            if isinstance(error, OSError | TimeoutError):
                raise
            raise ConnectionError(f"{type(error).__name__}: {error}") from None

    async def _exchange(self, request: Request, answer: Answer, headers: dict[str, str]) -> None:
        self.calls += 1
        sending = self._open().post(self._url, data=request.body, headers=headers, allow_redirects=False)
        async with sending as reply:
            _check_head(reply)
            async for chunk in reply.content.iter_any():
                self.bytes_read += len(chunk)
                answer.feed(chunk)
            answer.close()
            if reply.status != 200:
                raise HTTPException(f"{reply.status} without a fault")

    async def aclose(self) -> None:
        """Let go of the connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None


def _check_head(reply: aiohttp.ClientResponse) -> None:
    """An answer in XML and UTF-8 as it is, or a fault."""
    if reply.status in BUSY:
        raise Busy(reply.status, reply.reason or "", reply.headers.get("Retry-After"))
    if reply.status not in (200, _FAULT_STATUS):
        raise HTTPException(f"{reply.status} {reply.reason}")
    if reply.headers.get("Content-Encoding", "identity") != "identity":
        raise Garbled("the answer is packed though nobody asked for it")
    if (reply.charset or "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise Garbled(f"the answer is written in {reply.charset!r}, not in UTF-8")
    if reply.status == _FAULT_STATUS and "xml" not in reply.content_type:
        raise HTTPException(f"{reply.status} {reply.reason}")


def _certificate_error(error: aiohttp.ClientConnectorCertificateError) -> Exception:
    found = error.certificate_error
    return found if isinstance(found, ssl.SSLCertVerificationError) else ConnectionError(str(found))
