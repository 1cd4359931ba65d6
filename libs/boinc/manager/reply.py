"""What a client is answered: byte for byte what both generations of clients take, or a ValueError that names the part.

Lines end in LF and keys and signatures stand at column 0: newer clients refuse an indented or CRLF block.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from libs.boinc import lenient, wording
from libs.boinc.account import LONGEST_URL, KeyKind, canonical_url, kind_of
from libs.boinc.lenient import Node
from libs.boinc.signing import PublicKey, check_signature

_PROLOG = '<?xml version="1.0" encoding="ISO-8859-1" ?>\n'
MOST_REPEAT_S = 86_400
_ORDERS = ("dont_request_more_work", "detach_when_done", "suspend", "abort_not_started", "update", "detach")


@dataclass(frozen=True, slots=True)
class ProjectAccount:
    """A project that the machine shall be attached to, or leave."""

    url: str
    signature: str | None = None
    """The block over exactly `url`; may be missing only where the client shall leave."""
    authenticator: str = field(default="", repr=False)
    """The weak account key."""
    resource_share: float | None = None
    """0: its work is fetched when no other project has any. A client applies it from the second reply on, not on the
    one that attaches."""
    dont_request_more_work: bool = False
    detach_when_done: bool = False
    """Finish, report, then leave."""
    suspend: bool = False
    abort_not_started: bool = False
    update: bool = False
    """Contact the project's scheduler at once."""
    detach: bool = False
    """Leave now: running tasks are lost, and so are finished ones that were not reported."""

    def __post_init__(self) -> None:
        if self.url != canonical_url(self.url):
            raise ValueError("url: must be the canonical master URL, as it was signed")
        if self.signature is not None:
            check_signature(self.signature)
        leaves = self.detach or self.detach_when_done
        if not leaves and (self.signature is None or not self.authenticator):
            raise ValueError("signature, authenticator: must be there unless the client shall leave")
        if self.authenticator and kind_of(self.authenticator) is not KeyKind.WEAK:
            raise ValueError("authenticator: must be a weak account key; no other reaches a guest")
        share = self.resource_share
        if share is not None and not (math.isfinite(share) and 0 <= share <= 1e6):
            raise ValueError("resource_share: must be at least 0 and at most 1000000")


@dataclass(frozen=True, slots=True)
class ManagerReply:
    """What the account manager wants of one client."""

    name: str
    signing_key: PublicKey
    repeat_s: int
    """When the client shall come again; 1 to 86400."""
    accounts: tuple[ProjectAccount, ...] = ()
    authenticator: str | None = field(default=None, repr=False)
    """The token that the client shall keep instead of the one it has."""
    opaque: str = field(default="", repr=False)
    message: str = ""
    user_name: str = ""
    dynamic: bool = True
    """Counters in requests, our preferences always win, a starved client comes after ten idle minutes."""
    send_tasks: bool = False
    preferences: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not wording.shown(self.name):
            raise ValueError("name: must hold something that can be shown")
        if not 1 <= self.repeat_s <= MOST_REPEAT_S:
            raise ValueError(f"repeat_s: must be from 1 to {MOST_REPEAT_S} seconds")
        wording.check_opaque(self.opaque)
        if self.authenticator is not None:
            wording.line("authenticator", self.authenticator)
        if len({account.url for account in self.accounts}) != len(self.accounts):
            raise ValueError("accounts: a project is there twice")
        wording.preferences(self.preferences)


def render_reply(reply: ManagerReply) -> bytes:
    """The body of the answer."""
    parts = [_PROLOG, "<acct_mgr_reply>\n", f"<name>{wording.shown(reply.name)}</name>\n"]
    if reply.authenticator is not None:
        text = wording.line("authenticator", reply.authenticator)
        parts.append(f"<authenticator>{text}</authenticator>\n")
    if reply.user_name:
        parts.append(f"<user_name>{wording.shown(reply.user_name)}</user_name>\n")
    if reply.message:
        parts.append(f"<message>{wording.shown(reply.message)}</message>\n")
    parts += [
        f"<signing_key>\n{reply.signing_key.text}</signing_key>\n",
        f"<repeat_sec>{reply.repeat_s}</repeat_sec>\n",
        "<dynamic>1</dynamic>\n" if reply.dynamic else "",
        "<send_tasks_all>1</send_tasks_all>\n" if reply.send_tasks else "",
        "<no_project_notices>1</no_project_notices>\n",
        *(_render_account(account) for account in reply.accounts),
        f"<opaque>\n{reply.opaque}\n</opaque>\n" if reply.opaque else "",
        wording.preferences(reply.preferences) if reply.preferences else "",
        "</acct_mgr_reply>\n",
    ]
    return "".join(parts).encode("ascii")


def render_error(number: int, message: str) -> bytes:
    """A refusal. The client is silent for ten minutes to a day after it: only for who has no business here."""
    shown = wording.shown(message)
    return (
        f"{_PROLOG}<acct_mgr_reply>\n<error_num>{number}</error_num>\n"
        f"<error_msg>{shown}</error_msg>\n</acct_mgr_reply>\n"
    ).encode("ascii")


def render_config(name: str) -> bytes:
    """The answer to `get_project_config.php`, which a person's BOINC Manager asks before it attaches."""
    return (
        f"{_PROLOG}<project_config>\n<name>{wording.shown(name)}</name>\n"
        "<account_manager/>\n<client_account_creation_disabled/>\n"
        "<min_passwd_length>6</min_passwd_length>\n</project_config>\n"
    ).encode("ascii")


def parse_reply(body: bytes) -> ManagerReply:
    """The reply in a body, as a client reads it. Raises ValueError for what a client would not take."""
    root = lenient.find_root(lenient.decode(body), "acct_mgr_reply")
    if root is None:
        raise ValueError("This is no reply of an account manager.")
    if root.find("error_num") or root.find("error_msg"):
        raise ValueError(f"The account manager refuses: {root.integer('error_num')}.")
    wanted = root.find("global_preferences") or Node("global_preferences")
    token = root.find("authenticator")
    return ManagerReply(
        name=root.get("name"),
        signing_key=PublicKey(_block(root, "signing_key")),
        repeat_s=root.integer("repeat_sec") or MOST_REPEAT_S,
        accounts=tuple(_account(each) for each in root.all("account")),
        authenticator=None if token is None else token.text.strip(),
        opaque=root.get("opaque"),
        message=root.get("message"),
        user_name=root.get("user_name"),
        dynamic=root.flag("dynamic"),
        send_tasks=root.flag("send_tasks_all"),
        preferences={each.tag: lenient.number_of(each.text) for each in wanted.children},
    )


def _render_account(account: ProjectAccount) -> str:
    rows = [f"<account>\n<url>{wording.line('url', account.url, LONGEST_URL)}</url>\n"]
    if account.signature is not None:
        rows.append(f"<url_signature>\n{account.signature}</url_signature>\n")
    if account.authenticator:
        text = wording.line("authenticator", account.authenticator)
        rows.append(f"<authenticator>{text}</authenticator>\n")
    if account.resource_share is not None:
        share = f"{account.resource_share:.10g}"
        rows.append(f"<resource_share>{share}</resource_share>\n")
    rows += [f"<{order}>{int(getattr(account, order))}</{order}>\n" for order in _ORDERS]
    return "".join(rows) + "</account>\n"


def _account(node: Node) -> ProjectAccount:
    share = node.find("resource_share")
    return ProjectAccount(
        url=node.get("url"),
        signature=_block(node, "url_signature") if node.find("url_signature") else None,
        authenticator=node.get("authenticator"),
        resource_share=None if share is None else lenient.number_of(share.text),
        **{order: node.flag(order) for order in _ORDERS},
    )


def _block(node: Node, tag: str) -> str:
    return node.get(tag) + "\n"
