"""One project's web RPCs over HTTP: GET, answers of any kind, a second between requests, a deadline for each."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import aiohttp
from yarl import URL

from libs.boinc import lenient
from libs.boinc.account import canonical_url
from libs.boinc.web import answers
from libs.boinc.web.answers import Account, ProjectConfig, ServerStatus, UserCredit
from libs.boinc.web.errors import BadPassword, NotFound, ProjectRefused, ProjectUnavailable
from libs.boinc.web.reach import FAR, Reach, insist_on_url, open_http
from libs.boinc.web.stats import StatsFile, StatsKind, open_stats
from libs.boinc.web.unpacking import ENCODINGS, read_at_most

T = TypeVar("T")

SOURCE = "Tides"
TIMEOUT_S = 30.0
GAP_S = 1.0
LARGEST_ANSWER = 1024 * 1024
LARGEST_USER = 64 * 1024 * 1024
"""A user with a hundred thousand hosts."""
_BIG = 128 * 1024
"""More is parsed beside the event loop."""
_MOST_REDIRECTS = 3


class ProjectClient:
    """The web RPCs of one project.

    Raises ProjectUnavailable for what may pass, a kind of ProjectRefused for what the project means. Keys and hashes
    are in no error and no log. A login that was refused is not tried again in the life of this object.
    """

    def __init__(self, http: aiohttp.ClientSession, rpc_url: str, timeout_s: float = TIMEOUT_S) -> None:
        self._http = http
        self._url = canonical_url(rpc_url)
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._not_before = 0.0
        self._is_here = _is_here(self._url)
        self._refused: dict[tuple[str, str], ProjectRefused] = {}

    async def config(self) -> ProjectConfig:
        """What the project says of itself; also while it is down."""
        text = await self._get("get_project_config.php")
        return await _read(partial(answers.read_config, asked_url=self._url), text)

    async def create_account(
        self, email: str, passwd_hash: str, user_name: str, *, invite_code: str = "", consent: bool = False
    ) -> str:
        """The strong key of the account, new or the same as at the last try. Raises NotUnique, ConsentRequired …

        `consent`: somebody was shown the project's terms and agreed to them.
        """
        given = {"email_addr": email, "passwd_hash": passwd_hash, "user_name": user_name.strip()}
        if consent:
            given |= {"consent_flag": "1", "source": SOURCE}
        if invite_code:
            given["invite_code"] = invite_code
        return await _read(answers.read_authenticator, await self._get("create_account.php", given))

    async def has_account(self, email: str) -> bool:
        """Whether there is an account of this e-mail address."""
        try:
            answers.read(await self._get("lookup_account.php", {"email_addr": email}), "account_out")
        except NotFound:
            return False
        return True

    async def lookup_account(self, email: str, passwd_hash: str) -> str:
        """The strong key of an account. Raises BadPassword or NotFound, and from then on without asking."""
        login = (email, passwd_hash)
        if login in self._refused:
            raise self._refused[login]
        given = {"email_addr": email, "passwd_hash": passwd_hash}
        try:
            return await _read(answers.read_authenticator, await self._get("lookup_account.php", given))
        except (BadPassword, NotFound) as refused:
            self._refused[login] = refused
            raise

    async def account(self, strong_key: str) -> Account:
        """The account with its weak key, which changes when the password does."""
        return await _read(
            answers.read_account, await self._get("am_get_info.php", {"account_key": strong_key})
        )

    async def set_host_venue(self, strong_key: str, host_id: int, venue: str) -> None:
        """Put a host into a venue. Raises NotFound where it is not the account's."""
        given = {"account_key": strong_key, "hostid": str(host_id), "venue": venue}
        answers.read(await self._get("am_set_host_info.php", given), "am_set_host_info_reply")

    async def user(self, user_id: int) -> UserCredit:
        """A user's public totals."""
        given = {"format": "xml", "userid": str(user_id)}
        return await _read(answers.read_user, await self._get("show_user.php", given))

    async def user_with_hosts(self, strong_key: str) -> UserCredit:
        """The account's totals and each of its hosts; at most once an hour."""
        given = {"format": "xml", "auth": strong_key}
        return await _read(answers.read_user, await self._get("show_user.php", given, LARGEST_USER))

    async def server_status(self) -> ServerStatus:
        """Daemons and queues."""
        return await _read(answers.read_status, await self._get("server_status.php", {"xml": "1"}))

    @asynccontextmanager
    async def stats(
        self, kind: StatsKind, etag: str = "", users: frozenset[int] | None = None
    ) -> AsyncIterator[StatsFile | None]:
        """A statistics file, as `open_stats` reads it; at most once a day."""
        async with open_stats(self._http, self._url, kind, etag, users) as file:
            yield file

    async def _get(
        self, path: str, given: Mapping[str, str] | None = None, most: int = LARGEST_ANSWER
    ) -> str:
        async with self._turn:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(self._not_before - loop.time())
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._follow(URL(self._url) / path % (given or {}), most)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                # What aiohttp says may quote the address, and with it a key.
                raise ProjectUnavailable(f"The project does not answer: {type(error).__name__}.") from None
            finally:
                self._not_before = loop.time() + (0.0 if self._is_here else GAP_S)

    async def _follow(self, url: URL, most: int) -> str:
        for _ in range(_MOST_REDIRECTS + 1):
            asked = self._http.get(
                url, allow_redirects=False, auto_decompress=False, headers={"Accept-Encoding": ENCODINGS}
            )
            async with asked as answer:
                if answer.status in (301, 302, 303, 307, 308):
                    url = _next(url, answer.headers.get("Location", ""))
                    continue
                if answer.status != 200:
                    raise ProjectUnavailable(f"The project answers with HTTP {answer.status}.")
                return lenient.decode(await read_at_most(answer, most), answer.charset)
        raise ProjectUnavailable("The project sends us in circles.")


@asynccontextmanager
async def open_project(rpc_url: str, reach: Reach = FAR) -> AsyncIterator[ProjectClient]:
    """A client of a project with a connection of its own, which leads nowhere beyond `reach`.

    Raises ValueError for what is no project's address, OutOfReach.
    """
    insist_on_url(URL(canonical_url(rpc_url)), reach)
    async with open_http(reach) as http:
        yield ProjectClient(http, rpc_url)


async def _read(reader: Callable[[str], T], text: str) -> T:
    """What the reader makes of the text; of much text beside the event loop, for strangers wrote it."""
    return reader(text) if len(text) < _BIG else await asyncio.to_thread(reader, text)


def _next(url: URL, location: str) -> URL:
    target = url.join(URL(location))
    is_there = (target.scheme, target.host, target.port) == (url.scheme, url.host, url.port)
    is_stronger = (url.scheme, url.port, target.scheme, target.port) == ("http", 80, "https", 443)
    if not is_there and not (is_stronger and target.host == url.host):
        raise ProjectUnavailable("The project sends us to another host; give that address instead.")
    return target


def _is_here(url: str) -> bool:
    """Whether it is this machine's own, given in numbers: nobody's to be spared."""
    try:
        return ipaddress.ip_address(URL(url).host or "").is_loopback
    except ValueError:
        return False
