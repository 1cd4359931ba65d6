"""The demo project's web RPCs, as real ones are: GET alone, HTTP 200 always, errors in the body."""

import asyncio
from collections.abc import Callable, Mapping
from html import escape
from urllib.parse import quote_plus

from libs.boinc.demo_project.books import Host, JobState, User, md5
from libs.boinc.demo_project.project import PLATFORM, DemoProject

PROLOG = '<?xml version="1.0" encoding="ISO-8859-1" ?>\n'
_LEAST_ADDRESS = 3


async def call(project: DemoProject, name: str, given: Mapping[str, str]) -> str | None:
    """The answer; None where there is no such page."""
    if name not in _CALLS:
        return None
    if project.stopped and name != "get_project_config.php":
        return error(-183, "Project down for maintenance")
    if name == "lookup_account.php" and _is_wrong_login(project, given):
        await asyncio.sleep(project.wrong_login_s)
    return _CALLS[name](project, given)


def error(number: int, text: str) -> str:
    """BOINC's error, in a reply of HTTP 200."""
    return f"{PROLOG}<error>\n<error_num>{number}</error_num>\n<error_msg>{text}</error_msg>\n</error>\n"


def told_cpid(cpid: str, email: str) -> str:
    """A client's own id as a project tells it."""
    return md5(cpid + email)


def host_xml(host: Host, user: User, *, with_user: bool) -> str:
    """A host as it stands in `show_user.php` and, with its user, in the statistics."""
    owner = f"<userid>{user.id}</userid>" if with_user else ""
    return (
        f"<host>\n<id>{host.id}</id>{owner}<create_time>{host.created_at}</create_time>"
        f"<rpc_seqno>{max(0, host.rpc_seqno)}</rpc_seqno><rpc_time>{host.rpc_at}</rpc_time>"
        f"<host_cpid>{told_cpid(host.cpid, user.email)}</host_cpid><total_credit>{host.credit:f}</total_credit>"
        f"<expavg_credit>0</expavg_credit><domain_name>{escape(host.domain_name)}</domain_name>"
        f"<p_ncpus>{host.ncpus}</p_ncpus><p_fpops>{host.fpops:f}</p_fpops><venue>{escape(host.venue)}</venue>\n</host>\n"
    )


def _config(project: DemoProject, _given: Mapping[str, str]) -> str:
    flags = "" if project.takes_accounts else "<account_creation_disabled/>"
    flags += "<invite_code_required/>" if project.invite_code else ""
    down = "<error_num>-183</error_num><web_stopped>1</web_stopped>" if project.stopped else ""
    plan = f"<plan_class>{project.plan_class}</plan_class>" if project.plan_class else ""
    terms = f"<terms_of_use>\n{project.terms}\n</terms_of_use>" if project.terms else ""
    return (
        "<br /><b>Deprecated</b>: x<br />\n"  # PHP prints such on real servers
        f"{PROLOG}<project_config><name>{escape(project.name)}</name>"
        f"<master_url>{project.master_url or project.url}</master_url>"
        f"<web_rpc_url_base>{project.url}</web_rpc_url_base>"
        f"{flags}{down}<min_passwd_length>6</min_passwd_length>"
        f"<platforms><platform><platform_name>{PLATFORM}</platform_name>{plan}</platform></platforms>"
        f"{terms}</project_config>"
    )


def _create(project: DemoProject, given: Mapping[str, str]) -> str:
    email, passwd_hash = given.get("email_addr", ""), given.get("passwd_hash", "")
    known = _known(project, email)
    name, consented = given.get("user_name", ""), given.get("consent_flag") == "1" and given.get("source")
    wrong = (
        (not email, error(-1, "missing or bad parameter: email_addr")),
        (len(passwd_hash) != 32, error(-1, "password hash length not 32")),
        (project.invite_code not in ("", given.get("invite_code")), error(-1, "Invalid invitation code")),
        (not project.takes_accounts, error(-208, "The project is not accepting new accounts.")),
        (bool(project.terms) and not consented, error(-242, "consent required")),
        ("@" not in email or len(email) < _LEAST_ADDRESS, error(-205, "bad e-mail address")),
        (known is not None and known.passwd_hash != passwd_hash, error(-137, "not unique")),
        (not name or name != name.strip(), error(-188, "bad user name")),
    )
    if said := next((text for is_so, text in wrong if is_so), ""):
        return said
    if known is None:
        known = project.user(email, passwd_hash)
        known.consent, known.name = given.get("source", ""), name
        project.keep()
    return _key(known)


def _look_up(project: DemoProject, given: Mapping[str, str]) -> str:
    known = _known(project, given.get("email_addr", ""))
    if known is None:
        return error(-136, "Not found")
    if "passwd_hash" not in given:
        return f"{PROLOG}<account_out><success/></account_out>"
    return _key(known) if known.passwd_hash == given["passwd_hash"] else error(-206, "bad password")


def _is_wrong_login(project: DemoProject, given: Mapping[str, str]) -> bool:
    known = _known(project, given.get("email_addr", ""))
    return known is None or given.get("passwd_hash", known.passwd_hash) != known.passwd_hash


def _info(project: DemoProject, given: Mapping[str, str]) -> str:
    user = _of(project, given.get("account_key", ""))
    if user is None:
        return error(-136, "Not found")
    return (
        f"{PROLOG}<am_get_info_reply><success/><id>{user.id}</id><name>{quote_plus(user.name)}</name>"
        f"<weak_auth>{user.weak}</weak_auth><cpid>{_cpid(user)}</cpid><create_time>{user.created_at}</create_time>"
        "<teamid>0</teamid></am_get_info_reply>"
    )


def _set_host(project: DemoProject, given: Mapping[str, str]) -> str:
    user = _of(project, given.get("account_key", ""))
    hosts = [host for host in user.hosts if str(host.id) == given.get("hostid")] if user else []
    if not hosts:
        return error(-136, "Not found")
    hosts[0].venue = given.get("venue", "")
    project.keep()
    return f"{PROLOG}<am_set_host_info_reply><success/></am_set_host_info_reply>"


def _show(project: DemoProject, given: Mapping[str, str]) -> str:
    if given.get("format") != "xml":
        return error(-1, "missing or bad parameter: format")
    is_own = "auth" in given
    found = (
        _of(project, given["auth"])
        if is_own
        else project.find_user(lambda user: str(user.id) == given.get("userid"))
    )
    if found is None:
        return error(-136, "Not found")
    hosts = "".join(host_xml(host, found, with_user=False) for host in found.hosts) if is_own else ""
    return f"{PROLOG}{user_xml(found, hosts)}"


def user_xml(user: User, more: str = "") -> str:
    """A user as it stands in `show_user.php` and in the statistics."""
    total = sum(host.credit for host in user.hosts)
    return (
        f"<user>\n<id>{user.id}</id>\n<cpid>{_cpid(user)}</cpid>\n<create_time>{user.created_at}</create_time>\n"
        f"<name>{escape(user.name)}</name>\n<total_credit>{total:f}</total_credit>\n<expavg_credit>0</expavg_credit>\n"
        f"<teamid>0</teamid>\n{more}</user>\n"
    )


def _status(project: DemoProject, _given: Mapping[str, str]) -> str:
    under_way = sum(job.state == JobState.SENT for job in project.jobs.values())
    waiting = sum(job.state == JobState.REPORTED for job in project.jobs.values())
    daemon = "<daemon><host>demo</host><command>validator</command><status>running</status></daemon>"
    return (
        f"{PROLOG}<server_status><daemon_status>{daemon}</daemon_status><database_file_states>"
        f"<results_ready_to_send>1000</results_ready_to_send><results_in_progress>{under_way}</results_in_progress>"
        f"<workunits_waiting_for_validation>{waiting}</workunits_waiting_for_validation><tasks_by_app><app><id>1</id>"
        f"<name>burner</name><unsent>1000</unsent><in_progress>{under_way}</in_progress>"
        f"<avg_runtime>{project.cpu_s / 3600:f}</avg_runtime></app></tasks_by_app></database_file_states>"
        "</server_status>"
    )


def _known(project: DemoProject, email: str) -> User | None:
    return project.find_user(lambda user: user.email.lower() == email.lower())


def _of(project: DemoProject, strong: str) -> User | None:
    found = project.find_user(lambda user: user.strong == strong)
    if found is None and "_" in strong:
        project.blame("a weak key where the strong one belongs")
    return found


def _cpid(user: User) -> str:
    return md5("demo" + user.email.lower())


def _key(user: User) -> str:
    return f"{PROLOG}<account_out><authenticator>{user.strong}</authenticator></account_out>"


_CALLS: Mapping[str, Callable[[DemoProject, Mapping[str, str]], str]] = {
    "get_project_config.php": _config,
    "create_account.php": _create,
    "lookup_account.php": _look_up,
    "am_get_info.php": _info,
    "am_set_info.php": lambda _project, _given: error(-1, "not supported"),
    "am_set_host_info.php": _set_host,
    "show_user.php": _show,
    "server_status.php": _status,
}
