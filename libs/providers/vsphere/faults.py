"""What vSphere's faults mean in Tides' words: which are final, which pass, and why."""

import http.client
import socket
import ssl
from typing import Any
from xml.parsers.expat import ExpatError

from pyVmomi import vim, vmodl

from libs.providers.base import Cause, Full, LoginRefused, ProviderError, Rejected, Unavailable

_Kind = type[ProviderError]
LONGEST_TEXT = 500

# The first row that fits decides: NotAuthenticated is a NoPermission, NoDiskSpace a VimFault, and so on.
_FAULTS: tuple[tuple[tuple[type[Any], ...], _Kind, Cause], ...] = (
    ((vim.fault.NotAuthenticated,), Unavailable, Cause.AUTH),
    ((vim.fault.InvalidLogin, vim.fault.NoClientCertificate), Rejected, Cause.AUTH),
    ((vim.fault.NoPermission,), Rejected, Cause.PERMISSION),
    ((vmodl.fault.SecurityError,), Rejected, Cause.PERMISSION),
    ((vmodl.fault.ManagedObjectNotFound, vim.fault.NotFound, vim.fault.NoHost), Rejected, Cause.NOT_FOUND),
    ((vim.fault.NoDiskSpace, vim.fault.InsufficientResourcesFault), Full, Cause.CAPACITY),
    ((vim.fault.LicenseEntityNotFound, vmodl.fault.NotEnoughLicenses), Full, Cause.QUOTA),
    ((vim.fault.DuplicateName, vim.fault.AlreadyExists), Rejected, Cause.CONFLICT),
    ((vim.fault.FileAlreadyExists,), Rejected, Cause.CONFLICT),
    ((vim.fault.FileNotFound,), Rejected, Cause.NOT_FOUND),
    ((vim.fault.TaskInProgress, vim.fault.ConcurrentAccess), Unavailable, Cause.CONFLICT),
    ((vim.fault.HostConnectFault, vmodl.fault.HostCommunication), Unavailable, Cause.UNREACHABLE),
    ((vim.fault.InvalidState, vim.fault.ResourceInUse, vim.fault.FileLocked), Unavailable, Cause.CONFLICT),
    ((vim.fault.Timedout,), Unavailable, Cause.TIMEOUT),
    ((vim.fault.InvalidName, vim.fault.InvalidDatastore, vim.fault.VmConfigFault), Rejected, Cause.INVALID),
    ((vmodl.fault.InvalidArgument, vmodl.fault.InvalidRequest), Rejected, Cause.INVALID),
    ((vmodl.fault.NotSupported, vmodl.fault.NotImplemented), Rejected, Cause.INVALID),
    ((vmodl.fault.RequestCanceled,), Unavailable, Cause.CONFLICT),
    ((vmodl.MethodFault,), Unavailable, Cause.UNKNOWN),
)

_WIRE: tuple[tuple[tuple[type[BaseException], ...], Cause], ...] = (
    ((TimeoutError,), Cause.TIMEOUT),
    ((socket.gaierror,), Cause.UNREACHABLE),
    ((http.client.HTTPException, ExpatError, OSError), Cause.UNREACHABLE),
)


class PinMismatch(Exception):
    """The server showed another certificate than the pinned one; nothing was sent to it."""

    def __init__(self, seen: str, pinned: str) -> None:
        super().__init__(seen)
        self.seen = seen
        self.pinned = pinned


BUSY = (429, 503)
"""A vCenter that starts, stops, or has no session left says 503; what stands before it may say 429."""


class Busy(http.client.HTTPException):
    """The server asks to be left alone, for so many seconds where it says so."""

    def __init__(self, status: int, reason: str, retry_after: str | None) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        told = (retry_after or "").strip()
        self.retry_after_s = float(told) if told.isascii() and told.isdigit() and len(told) < 10 else None


class TaskFailed(Exception):
    """A task of the cloud ended with this fault."""

    def __init__(self, fault: Any) -> None:
        super().__init__(describe(fault))
        self.fault = fault


class Refused(Exception):
    """A read over the raw wire was answered with this fault; pyVmomi's faults are awkward to raise themselves."""

    def __init__(self, fault: Any) -> None:
        super().__init__(describe(fault))
        self.fault = fault


def describe(fault: Any) -> str:
    """A fault in one line: its type, the cloud's own sentence, and the privilege where one was missing."""
    kind = type(fault).__name__.rpartition(".")[2]
    text = next(filter(None, (getattr(fault, name, None) for name in ("msg", "localizedMessage"))), "")
    details = [
        f"{label} {value}"
        for label, name in (
            ("privilege", "privilegeId"),
            ("property", "invalidProperty"),
            ("name", "name"),
            ("datastore", "datastore"),
        )
        if isinstance(value := getattr(fault, name, None), str) and value
    ]
    return _tame(
        " ".join(filter(None, (f"{kind}:" if text or details else kind, str(text).strip(), *details)))
    )


def _tame(text: str) -> str:
    """What the other side wrote, as one line of bounded length: it goes into logs, rows and answers."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[:LONGEST_TEXT])
    return line if len(text) <= LONGEST_TEXT else f"{line} ..."


def translate(error: BaseException, doing: str) -> ProviderError:
    """The error as Tides' callers know it; `doing` says what was tried. Unknown ones keep their own text."""
    if isinstance(error, ProviderError):
        return error
    if isinstance(error, PinMismatch):
        seen = f"the server's certificate has the SHA-256 thumbprint {error.seen}"
        return Rejected(Cause.TLS, f"{seen}, the pinned one is {error.pinned}; nothing was sent")
    if isinstance(error, Busy):
        cause = Cause.THROTTLED if error.status == 429 else Cause.UNREACHABLE
        return Unavailable(cause, f"{doing}: {_tame(str(error))}", error.retry_after_s)
    if isinstance(error, TaskFailed | Refused):
        error = error.fault
    if isinstance(error, vim.fault.RestrictedVersion):
        text = f"{doing}: the licence makes this API read-only: {describe(error)}"
        return Rejected(Cause.PERMISSION, text)
    for kinds, kind, cause in _FAULTS:
        if isinstance(error, kinds):
            return kind(cause, f"{doing}: {describe(error)}")
    cause = next((cause for wires, cause in _WIRE if isinstance(error, wires)), Cause.UNKNOWN)
    return Unavailable(cause, f"{doing}: {type(error).__name__}: {_tame(str(error))}".rstrip(": "))


def refuse_login(refusal: Exception, password: str) -> ProviderError:
    """A login that failed, in the other side's words but for the password, which it may have repeated.

    Without the account's name: outages are told to outside subscribers, and a known name is a name that can be locked.
    """
    error = translate(refusal, "login")
    detail = error.detail.replace(password, "***") if password else error.detail
    if isinstance(refusal, vim.fault.InvalidLogin):
        return LoginRefused(error.cause, detail)
    return type(error)(error.cause, detail, error.retry_after_s)


def untrusted(error: ssl.SSLCertVerificationError, seen: str | None) -> Rejected:
    """The certificate was refused, and the thumbprint that was seen; what to do is said by who asks."""
    shown = f" (SHA-256 thumbprint {seen})" if seen else ""
    return Rejected(Cause.TLS, f"the server's certificate{shown} is not trusted: {error.verify_message}")
