"""What a project's web RPCs answer, read leniently: missing is a default, a page is `ProjectUnavailable`."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from libs.boinc import lenient
from libs.boinc.account import KeyKind, canonical_url, kind_of
from libs.boinc.lenient import Node
from libs.boinc.web.errors import ProjectUnavailable, refusal

_CPID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class ProjectConfig:
    """What a project says of itself to whoever wants to attach."""

    name: str
    master_url: str
    """The canonical one: this text is used everywhere, and signed."""
    rpc_url: str
    """Prefix of the web RPCs."""
    server_version: str
    down: bool
    accounts_by: frozenset[str]
    """Hindrances: `account_creation_disabled`, `invite_code_required`, `client_account_creation_disabled`."""
    min_password_length: int
    platforms: frozenset[str]
    """`x86_64-pc-linux-gnu`, or with a plan class in brackets."""
    terms: str
    account_manager: bool

    @property
    def terms_hash(self) -> str:
        """SHA-256 of the terms' exact text: what somebody agreed to."""
        return hashlib.sha256(self.terms.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Account:
    """A user of a project. The weak key may reach guests, the strong one never."""

    user_id: int
    name: str
    cpid: str
    weak_key: str = field(repr=False)
    team_id: int


@dataclass(frozen=True, slots=True)
class HostCredit:
    """One host of a user. Credit is granted credit, in cobblestones."""

    id: int
    host_cpid: str
    domain_name: str
    total_credit: float
    average_credit: float
    average_at: float
    """Unix time that `average_credit` is of."""
    contact_at: float
    """Unix time of its last contact with the scheduler."""
    cpus: int
    fpops: float
    created_at: float
    """Unix time, by the project's clock; 0: it was not said."""


@dataclass(frozen=True, slots=True)
class UserCredit:
    """A user's credit, and that of each host where the strong key was given."""

    id: int
    name: str
    cpid: str
    total_credit: float
    average_credit: float
    average_at: float
    hosts: tuple[HostCredit, ...]


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """Whether the project's daemons run, and how much work it has."""

    daemons: Mapping[str, str]
    ready_to_send: int
    in_progress: int
    unsent_by_app: Mapping[str, int]

    @property
    def running(self) -> bool:
        """Whether nothing that shall run does not."""
        return "not running" not in self.daemons.values()


def password_hash(password: str, email: str) -> str:
    """What an account is created and looked up with instead of the password. A secret like it."""
    return hashlib.md5((password + email.lower()).encode(), usedforsecurity=False).hexdigest()


def read(text: str, *tags: str) -> Node:
    """The answer's element. Raises ProjectRefused for an error in it, ProjectUnavailable where it has none of them."""
    node = lenient.find_root(text, *tags, "error")
    if node is None:
        raise ProjectUnavailable("The project answers with a page, as during maintenance.")
    number = node.find("error_num")
    if number is not None and node.tag != "project_config":
        raise refusal(node.integer("error_num", -1), node.get("error_msg"))
    if node.tag == "error":
        raise refusal(-1, node.get("error_msg") or node.text)
    return node


def read_config(text: str, asked_url: str) -> ProjectConfig:
    """The configuration. Raises ProjectUnavailable, also where the master URL is none."""
    node = read(text, "project_config")
    try:
        master_url = canonical_url(node.get("master_url") or asked_url)
        rpc_url = canonical_url(node.get("web_rpc_url_base") or master_url)
    except ValueError as error:
        raise ProjectUnavailable(f"The address that the project gives for itself {error}.") from None
    flags = ("account_creation_disabled", "invite_code_required", "client_account_creation_disabled")
    platforms = node.find("platforms") or Node("platforms")
    return ProjectConfig(
        name=node.get("name"),
        master_url=master_url,
        rpc_url=rpc_url,
        server_version=node.get("server_version"),
        down=node.flag("web_stopped") or node.integer("error_num") != 0,
        accounts_by=frozenset(flag for flag in flags if node.flag(flag)),
        min_password_length=max(0, node.integer("min_passwd_length")),
        platforms=frozenset(_platform(each) for each in platforms.all("platform")),
        terms=node.get("terms_of_use"),
        account_manager=node.find("account_manager") is not None,
    )


def read_authenticator(text: str) -> str:
    """The strong key of an account that was created or looked up."""
    key = read(text, "account_out").get("authenticator")
    if kind_of(key) is not KeyKind.STRONG:
        raise ProjectUnavailable("The project answers with something that is no account key.")
    return key


def read_account(text: str) -> Account:
    """The account of a strong key, with its weak one."""
    node = read(text, "am_get_info_reply")
    weak_key = node.get("weak_auth")
    if kind_of(weak_key) is not KeyKind.WEAK:
        raise ProjectUnavailable("The project answers without a weak account key.")
    return Account(
        user_id=node.integer("id"),
        name=unquote_plus(node.get("name")),
        cpid=node.get("cpid"),
        weak_key=weak_key,
        team_id=node.integer("teamid"),
    )


def read_user(text: str) -> UserCredit:
    """A user, with its hosts where they are told."""
    node = read(text, "user")
    return UserCredit(
        id=node.integer("id"),
        name=node.get("name"),
        cpid=node.get("cpid"),
        total_credit=node.number("total_credit"),
        average_credit=node.number("expavg_credit"),
        average_at=node.number("expavg_time"),
        hosts=tuple(host_of(each) for each in node.all("host")),
    )


def host_of(node: Node) -> HostCredit:
    """A `<host>` of show_user or of a statistics file."""
    return HostCredit(
        id=node.integer("id"),
        host_cpid=node.get("host_cpid") if _CPID.fullmatch(node.get("host_cpid")) else "",
        domain_name=node.get("domain_name"),
        total_credit=node.number("total_credit"),
        average_credit=node.number("expavg_credit"),
        average_at=node.number("expavg_time"),
        contact_at=node.number("rpc_time"),
        cpus=node.integer("p_ncpus") or node.integer("ncpus"),
        fpops=node.number("p_fpops"),
        created_at=node.number("create_time"),
    )


def read_status(text: str) -> ServerStatus:
    """The state of the project's server."""
    node = read(text, "server_status")
    daemons = node.find("daemon_status") or Node("daemon_status")
    states = node.find("database_file_states") or Node("database_file_states")
    apps = states.find("tasks_by_app") or Node("tasks_by_app")
    return ServerStatus(
        daemons={each.get("command"): each.get("status") for each in daemons.all("daemon")},
        ready_to_send=states.integer("results_ready_to_send"),
        in_progress=states.integer("results_in_progress"),
        unsent_by_app={each.get("name"): each.integer("unsent") for each in apps.all("app")},
    )


def _platform(node: Node) -> str:
    name, plan = node.get("platform_name"), node.get("plan_class")
    return f"{name}[{plan}]" if plan else name
