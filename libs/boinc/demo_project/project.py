"""A demo project as a value: what it is like, what it remembers, and what its callers did wrong."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from libs.boinc.demo_project import books, burner
from libs.boinc.demo_project.books import Books, Host, Job, User, md5
from libs.boinc.signing import SigningKey
from libs.common.clock import Clock, WallClock

log = structlog.get_logger(__name__)

PROGRAM = "burner_100"
PLATFORM = "x86_64-pc-linux-gnu"
_MOST_KEPT = 10_000


@dataclass
class DemoProject:
    """Strict as real ones are. What a test turns: `page` answers everything with a page, `status` with this status."""

    url: str = ""
    """The master URL, which ends in a slash."""
    name: str = "Demo"
    terms: str = ""
    """Empty: an account may be made without consent."""
    master_url: str = ""
    """What it calls itself; empty: its address."""
    plan_class: str = ""
    invite_code: str = ""
    takes_accounts: bool = True
    shows_hosts: bool = True
    stopped: bool = False
    page: str | None = None
    status: int = 200
    wrong_login_s: float = 5.0
    """How long a wrong password waits for its answer; a real server does so against guessing."""
    jobs_per_host: int | None = None
    """So many tasks for each host at once, and no more ever; None: as many as it wants, two a processor at a time."""
    cpu_s: float = 60.0
    checkpoint_s: float = 10.0
    link_s: float = burner.STEP_S
    """What one link of a task's chain stands for; another than the program's own is for stand-in clients alone."""
    busy: bool = False
    """Whether tasks really spend the CPU that they count."""
    validate_after_s: float = 0.0
    """How long after a report its credit is granted: where results are compared it is hours to weeks."""
    request_delay_s: float = 1.0
    path: Path | None = None
    """Where it is written down; None: nowhere."""
    clock: Clock = field(default_factory=WallClock)
    books: Books = field(default_factory=Books)
    asked: list[str] = field(default_factory=list)
    """Names of the calls, in order."""
    faults: list[str] = field(default_factory=list)
    """What a caller did wrong; empty in a good test."""
    program: bytes = b""
    program_signature: str = ""
    _signer: SigningKey | None = None
    _preparing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        """Raises ValueError where the books are another project's."""
        if self.path is not None:
            self.books = books.load(self.path)
        if self.url:
            self._keep_address()

    async def prepare(self) -> None:
        """What takes a while, and only clients need: a key, and the program that it signs."""
        async with self._preparing:
            if self._signer is None:
                source = await asyncio.to_thread(Path(burner.__file__).read_bytes)
                self._signer = await asyncio.to_thread(self.books.signer)
                self.program = b"#!/usr/bin/env python3\n" + source
                self.program_signature = self._signer.sign_bytes(self.program)
                self.books.code_key_pem = self._signer.to_pem().decode()
                self.keep()

    @property
    def signer(self) -> SigningKey:
        """The key of programs and of permissions to upload; once `prepare` has made it."""
        assert self._signer is not None
        return self._signer

    @property
    def now(self) -> float:
        """The time, as BOINC writes it."""
        return self.clock.now().timestamp()

    @property
    def slug(self) -> str:
        """What its address ends in."""
        return urlsplit(self.url).path.strip("/").replace("/", "_") or "demo"

    @property
    def users(self) -> list[User]:
        """Accounts."""
        return self.books.users

    @property
    def jobs(self) -> dict[str, Job]:
        """Tasks by name."""
        return self.books.jobs

    @property
    def hosts(self) -> dict[int, Host]:
        """Hosts of all accounts."""
        return {host.id: host for user in self.users for host in user.hosts}

    @property
    def reported(self) -> list[Job]:
        """Tasks that came back."""
        return [job for job in self.jobs.values() if job.exit_status is not None]

    @property
    def weak_key(self) -> str:
        """The first account's, which is made where there is none."""
        return (self.users or [self.user("lab@example.com", md5("lab"))])[0].weak

    def user(self, email: str, passwd_hash: str) -> User:
        """A new account with keys of its own."""
        number = max((user.id for user in self.users), default=0) + 1
        user = User(number, email, passwd_hash, secrets.token_hex(16), "", created_at=int(self.now))
        self.users.append(user)
        self.change_password(user, passwd_hash)
        return user

    def change_password(self, user: User, passwd_hash: str) -> None:
        """Another password: the weak key changes with it, the strong one stays."""
        user.passwd_hash = passwd_hash
        user.weak = f"{user.id}_{md5(user.strong + passwd_hash)}"
        self.keep()

    def find_user(self, fits: Callable[[User], bool]) -> User | None:
        """The account that is this one, unless it was deleted."""
        gone = self.books.deleted_users
        return next((user for user in self.users if user.id not in gone and fits(user)), None)

    def count(self, name: str) -> int:
        """How often a call was made."""
        return self.asked.count(name)

    def note(self, call: str) -> None:
        """Remember that it was called."""
        self.asked.append(call)
        del self.asked[:-_MOST_KEPT]

    def blame(self, fault: str) -> None:
        """Remember what a caller did wrong."""
        log.warning("demo_project.refused", why=fault)
        self.faults.append(fault)
        del self.faults[:-_MOST_KEPT]

    def keep(self) -> None:
        """Write down what it remembers: before an answer tells of it."""
        if self.path is not None:
            books.save(self.books, self.path)

    def _keep_address(self) -> None:
        if self.books.url not in ("", self.url):
            raise ValueError(f"a project's address never changes, and this one's is {self.books.url}")
        if not self.books.url:
            self.books.url = self.url
            self.keep()
