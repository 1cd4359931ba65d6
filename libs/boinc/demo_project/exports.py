"""The demo project's statistics files, gzipped, with ETag. Real ones are written daily, these at once."""

import gzip
import hashlib
from collections.abc import Callable, Mapping, Sequence

from aiohttp import web

from libs.boinc.demo_project.accounts import host_xml, user_xml
from libs.boinc.demo_project.project import DemoProject


def export(project: DemoProject, name: str, known_etag: str | None) -> web.Response:
    """One file; 304 where the caller has it."""
    if name not in _FILES:
        return web.Response(status=404)
    text = _FILES[name](project).encode()
    body, kind = (
        (gzip.compress(text, mtime=0), "application/gzip") if name.endswith(".gz") else (text, "text/xml")
    )
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    if known_etag == etag:
        return web.Response(status=304, headers={"ETag": etag})
    return web.Response(body=body, content_type=kind, headers={"ETag": etag})


def _hosts(project: DemoProject) -> str:
    hosts = [(host, user) for user in project.users for host in user.hosts if project.shows_hosts]
    return "<hosts>" + "".join(host_xml(host, user, with_user=True) for host, user in hosts) + "</hosts>"


def _users(project: DemoProject) -> str:
    shown = [user for user in project.users if any(host.credit for host in user.hosts)]
    return "<users>" + "".join(user_xml(user) for user in shown) + "</users>"


def _tables(project: DemoProject) -> str:
    hosts = project.hosts.values()
    return (
        f"<tables><update_time>{project.now:.0f}</update_time><nusers_total>{len(project.users)}</nusers_total>"
        f"<nteams_total>0</nteams_total><nhosts_total>{len(hosts)}</nhosts_total>"
        f"<total_credit>{sum(host.credit for host in hosts):f}</total_credit></tables>"
    )


def _ids(tag: str, ids: Sequence[int]) -> str:
    return f"<{tag}s>" + "".join(f"<{tag}>\n<id>{number}</id>\n</{tag}>\n" for number in ids) + f"</{tag}s>"


_FILES: Mapping[str, Callable[[DemoProject], str]] = {
    "host.gz": _hosts,
    "user.gz": _users,
    "team.gz": lambda _project: "<teams></teams>",
    "tables.xml": _tables,
    "user_deleted.gz": lambda project: _ids("user", project.books.deleted_users),
    "host_deleted.gz": lambda project: _ids("host", project.books.deleted_hosts),
}
