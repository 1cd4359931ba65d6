"""What a demo project remembers: accounts, hosts, tasks, its keys. One file, whole or not there."""

import hashlib
import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from libs.boinc.signing import SigningKey

LATE_S = 86_400.0
"""So long after its deadline a report is still taken."""
MOST_OVER = 2_000
"""So many tasks that are over are remembered; who reports an older one is told that it is not known."""


class JobState(StrEnum):
    """How far a task is."""

    SENT = "sent"
    REPORTED = "reported"
    GRANTED = "granted"
    INVALID = "invalid"


@dataclass
class Job:
    """A task that was handed out."""

    name: str
    host_id: int
    cpu_s: float
    sent_at: float
    deadline_at: float
    state: JobState = JobState.SENT
    output: str | None = None
    """What was uploaded."""
    exit_status: int | None = None
    reported_at: float = 0.0
    claimed_cpu_s: float = 0.0

    def is_over(self, now: float) -> bool:
        """Whether it has been judged, or is so late that its host is gone."""
        return self.state in (JobState.GRANTED, JobState.INVALID) or now > self.deadline_at + LATE_S

    @property
    def file_name(self) -> str:
        """Its answer's name at the upload handler."""
        return f"{self.name}_0"


@dataclass
class Host:
    """A host of a user, as the project knows it."""

    id: int
    credit: float = 0.0
    cpid: str = ""
    """The client's own; told mixed with the user's e-mail address."""
    created_at: int = 0
    domain_name: str = "tides-1"
    rpc_seqno: int = -1
    rpc_at: int = 0
    contacts: int = 0
    ncpus: int = 2
    fpops: float = 0.0
    venue: str = ""


@dataclass
class User:
    """An account."""

    id: int
    email: str
    passwd_hash: str
    strong: str
    weak: str
    hosts: list[Host] = field(default_factory=list)
    consent: str = ""
    """`source` of the consent that it was made with."""
    name: str = "Enterprise One"
    created_at: int = 0


@dataclass
class Books:
    """All of it."""

    url: str = ""
    """The master URL that it was begun under, which clients compare and which never changes."""
    code_key_pem: str = ""
    """What programs and permissions to upload are signed with; every client pins it."""
    users: list[User] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    handed_out: int = 0
    last_host_id: int = 0
    deleted_users: list[int] = field(default_factory=list)
    deleted_hosts: list[int] = field(default_factory=list)

    def signer(self) -> SigningKey:
        """The key that programs are signed with; a new one where there is none. Takes a while."""
        if not self.code_key_pem:
            return SigningKey.generate()
        return SigningKey.from_pem(self.code_key_pem.encode())

    def forget_old_jobs(self, now: float) -> None:
        """Let go of the oldest tasks that are over, be it that nobody ever reported them."""
        over = [name for name, job in self.jobs.items() if job.is_over(now)]
        for name in over[:-MOST_OVER]:
            del self.jobs[name]


_ADAPTER = TypeAdapter(Books)


def load(path: Path) -> Books:
    """The books in the file; new ones where there is none. Raises ValueError naming the file."""
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except FileNotFoundError:
        return Books()
    except ValidationError:
        raise ValueError(f"{path} holds no demo project's books; name another folder") from None


def save(books: Books, path: Path) -> None:
    """Write them down before anybody is told of what is in them. For their owner alone."""
    fresh = path.with_name(f".{path.name}.new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(_ADAPTER.dump_json(books))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else a power cut could undo the renaming
    finally:
        os.close(folder)


def md5(text: str) -> str:
    """BOINC's digest of everything."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
