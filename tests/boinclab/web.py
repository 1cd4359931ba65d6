"""A stand-in for a project's web RPCs, strict as real ones are: GET alone, HTTP 200 always, errors in the body."""

import gzip
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import quote_plus

from aiohttp import web

PROLOG = '<?xml version="1.0" encoding="ISO-8859-1" ?>\n'
HTML = "<html><body><h1>Down for maintenance</h1></body></html>"


@dataclass
class Host:
    """A host of a user, as the project knows it."""

    id: int
    credit: float = 0.0
    cpid: str = ""
    """The client's own; told mixed with the user's e-mail address."""
    created_at: int = 0
    domain_name: str = "tides-1"


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


@dataclass
class StandInWeb:
    """One project's web RPCs. `page` answers everything with a page, `status` with this status."""

    url: str = ""
    name: str = "Lab"
    terms: str = "<b>Be kind</b> & lend"
    master_url: str = ""
    """What it calls itself; empty: its address."""
    plan_class: str = ""
    invite_code: str = ""
    takes_accounts: bool = True
    stopped: bool = False
    page: str | None = None
    status: int = 200
    users: list[User] = field(default_factory=list)
    deleted_users: list[int] = field(default_factory=list)
    deleted_hosts: list[int] = field(default_factory=list)
    shows_hosts: bool = True
    asked: list[str] = field(default_factory=list)
    """Names of the calls, in order."""
    faults: list[str] = field(default_factory=list)
    """What a caller did wrong; empty in a good test."""

    def user(self, email: str, passwd_hash: str) -> User:
        """A new account with keys of its own."""
        number = len(self.users) + 1
        strong = hashlib.md5(f"strong {self.name} {number}".encode(), usedforsecurity=False).hexdigest()
        user = User(number, email, passwd_hash, strong, "")
        self.users.append(user)
        self.change_password(user, passwd_hash)
        return user

    def change_password(self, user: User, passwd_hash: str) -> None:
        """Another password: the weak key changes with it, the strong one stays."""
        user.passwd_hash = passwd_hash
        mixed = hashlib.md5((user.strong + passwd_hash).encode(), usedforsecurity=False).hexdigest()
        user.weak = f"{user.id}_{mixed}"

    def count(self, name: str) -> int:
        """How often a call was made."""
        return self.asked.count(name)

    async def answer(self, request: web.Request) -> web.Response:
        """One call."""
        name = request.match_info["name"]
        self.asked.append(name)
        if request.method != "GET" or await request.read():
            self.faults.append(f"{name}: not a plain GET")
        if self.page is not None or self.status != 200:
            return web.Response(text=self.page or "", status=self.status, content_type="text/html")
        if name.startswith("stats/"):
            return self._stats(request, name.removeprefix("stats/"))
        answers: dict[str, Callable[[Mapping[str, str]], str]] = {
            "get_project_config.php": self._config,
            "create_account.php": self._create,
            "lookup_account.php": self._look_up,
            "am_get_info.php": self._info,
            "show_user.php": self._show,
        }
        if name not in answers:
            self.faults.append(f"{name}: no such page")
            return web.Response(status=404)
        if self.stopped and name != "get_project_config.php":
            return web.Response(text=error(-183, "Project down for maintenance"), content_type="text/xml")
        return web.Response(text=answers[name](request.query), content_type="text/xml")

    def _config(self, _given: Mapping[str, str]) -> str:
        flags = "" if self.takes_accounts else "<account_creation_disabled/>"
        flags += "<invite_code_required/>" if self.invite_code else ""
        down = "<error_num>-183</error_num><web_stopped>1</web_stopped>" if self.stopped else ""
        plan = f"<plan_class>{self.plan_class}</plan_class>" if self.plan_class else ""
        return (
            "<br /><b>Deprecated</b>: x<br />\n"
            f"{PROLOG}<project_config><name>{self.name}</name>"
            f"<master_url>{self.master_url or self.url}</master_url><web_rpc_url_base>{self.url}</web_rpc_url_base>"
            f"{flags}{down}<min_passwd_length>6</min_passwd_length>"
            f"<platforms><platform><platform_name>x86_64-pc-linux-gnu</platform_name>{plan}</platform></platforms>"
            f"<terms_of_use>\n{self.terms}\n</terms_of_use></project_config>"
        )

    def _create(self, given: Mapping[str, str]) -> str:
        email, passwd_hash = given.get("email_addr", ""), given.get("passwd_hash", "")
        known = self._known(email)
        name, consented = given.get("user_name", ""), given.get("consent_flag") == "1" and given.get("source")
        wrong = (
            (len(passwd_hash) != 32, error(-1, "password hash length not 32")),
            (self.invite_code not in ("", given.get("invite_code")), error(-1, "Invalid invitation code")),
            (not self.takes_accounts, error(-208, "The project is not accepting new accounts.")),
            (bool(self.terms) and not consented, error(-242, "consent required")),
            (known is not None and known.passwd_hash != passwd_hash, error(-137, "not unique")),
            (not name or name != name.strip(), error(-188, "bad user name")),
        )
        if said := next((text for is_so, text in wrong if is_so), ""):
            return said
        if known is not None:
            return _key(known)
        user = self.user(email, passwd_hash)
        user.consent = given.get("source", "")
        return _key(user)

    def _look_up(self, given: Mapping[str, str]) -> str:
        known = self._known(given.get("email_addr", ""))
        if known is None:
            return error(-136, "Not found")
        if "passwd_hash" not in given:
            return f"{PROLOG}<account_out><success/></account_out>"
        return _key(known) if known.passwd_hash == given["passwd_hash"] else error(-206, "bad password")

    def _info(self, given: Mapping[str, str]) -> str:
        user = self._of(given.get("account_key", ""))
        if user is None:
            return error(-136, "Not found")
        return (
            f"{PROLOG}<am_get_info_reply><success/><id>{user.id}</id><name>{quote_plus('Enterprise One')}</name>"
            f"<weak_auth>{user.weak}</weak_auth><cpid>{'c' * 32}</cpid><teamid>0</teamid></am_get_info_reply>"
        )

    def _show(self, given: Mapping[str, str]) -> str:
        user = self._of(given.get("auth", ""))
        if given.get("format") != "xml" or user is None:
            return error(-136, "Not found")
        hosts = "".join(_host(host, user, with_user=False) for host in user.hosts)
        total = sum(host.credit for host in user.hosts)
        return (
            f"{PROLOG}<user><id>{user.id}</id><cpid>{'c' * 32}</cpid><name>Enterprise One</name>"
            f"<total_credit>{total:f}</total_credit>{hosts}</user>"
        )

    def _stats(self, request: web.Request, name: str) -> web.Response:
        texts = {
            "host.gz": "<hosts>"
            + "".join(
                _host(host, user, with_user=True)
                for user in self.users
                for host in user.hosts
                if self.shows_hosts
            )
            + "</hosts>",
            "user_deleted.gz": _ids("user", self.deleted_users),
            "host_deleted.gz": _ids("host", self.deleted_hosts),
        }
        if name not in texts:
            return web.Response(status=404)
        body = gzip.compress(texts[name].encode(), mtime=0)
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304)
        return web.Response(body=body, content_type="application/gzip", headers={"ETag": etag})

    def _known(self, email: str) -> User | None:
        found = [user for user in self.users if user.email.lower() == email.lower()]
        return found[0] if found and found[0].id not in self.deleted_users else None

    def _of(self, strong: str) -> User | None:
        found = [user for user in self.users if user.strong == strong and user.id not in self.deleted_users]
        if not found and "_" in strong:
            self.faults.append("a weak key where the strong one belongs")
        return found[0] if found else None


@asynccontextmanager
async def serving(name: str = "lab") -> AsyncIterator[StandInWeb]:
    """A project's web RPCs on 127.0.0.1 until the block ends; whoever called them wrongly is told at its end."""
    project = StandInWeb(name=name.title())
    app = web.Application()
    app.router.add_route("*", f"/{name}/{{name:.*}}", project.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        project.url = f"http://127.0.0.1:{runner.addresses[0][1]}/{name}/"
        yield project
    finally:
        await runner.cleanup()
    assert project.faults == []


def error(number: int, text: str) -> str:
    """BOINC's error, in a reply of HTTP 200."""
    return f"{PROLOG}<error>\n<error_num>{number}</error_num>\n<error_msg>{text}</error_msg>\n</error>\n"


def told_cpid(cpid: str, email: str) -> str:
    """A client's own id as a project tells it."""
    return hashlib.md5((cpid + email).encode(), usedforsecurity=False).hexdigest()


def _key(user: User) -> str:
    return f"{PROLOG}<account_out><authenticator>{user.strong}</authenticator></account_out>"


def _host(host: Host, user: User, *, with_user: bool) -> str:
    owner = f"<userid>{user.id}</userid>" if with_user else ""
    return (
        f"<host>\n<id>{host.id}</id>{owner}<create_time>{host.created_at}</create_time><rpc_time>0</rpc_time>"
        f"<host_cpid>{told_cpid(host.cpid, user.email)}</host_cpid><total_credit>{host.credit:f}</total_credit>"
        f"<expavg_credit>0</expavg_credit><domain_name>{host.domain_name}</domain_name><p_ncpus>2</p_ncpus>\n</host>\n"
    )


def _ids(tag: str, ids: list[int]) -> str:
    return f"<{tag}s>" + "".join(f"<{tag}>\n<id>{number}</id>\n</{tag}>\n" for number in ids) + f"</{tag}s>"
