"""`tides template`: the images that machines are made from."""

from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.access import ask
from services.cli.client import Client, Failed, plain
from services.cli.clouds import read_ca
from services.cli.names import RESOURCE, TEMPLATE, Item, find
from services.cli.watching import AsJson

templates = typer.Typer(no_args_is_help=True, help="Images that machines are made from.")
Name = Annotated[str, typer.Argument(help="Name or id.")]
Version = Annotated[int | None, typer.Option(help="Left out: the newest.")]
Components = Annotated[
    str, typer.Option(help="What the image holds, so that machines do not install it: boinc,agent,ca.")
]


@templates.command("add")
def add_template(  # noqa: PLR0913, PLR0917 - each option of a command is a parameter
    context: typer.Context,
    name: str,
    resource: Annotated[str, typer.Option()],
    reference: Annotated[str, typer.Option(help="As the cloud calls it.")],
    approve: Annotated[bool, typer.Option(help="Let it be deployed at once.")] = False,
    derived_from: Annotated[
        str | None, typer.Option(help="NAME or NAME:VERSION that a person made this image from.")
    ] = None,
    components: Components = "",
    next_: Annotated[bool, typer.Option("--next", help="As the next version of the template NAME.")] = False,
) -> None:
    """Register a template that exists in a cloud, as a draft."""

    async def work(client: Client) -> tuple[str, Item]:
        cloud = await find(client, RESOURCE, resource)
        there = [one for one in await client.pages(TEMPLATE.path) if one["resource_id"] == cloud["id"]]
        body: Item = {"reference": reference, "components": _words(components)}
        if derived_from is not None:
            body["derived_from"] = _version_of(there, derived_from)[1]["id"]
        if next_:
            known = _template_of(there, name)
            version = await client.call("POST", f"{TEMPLATE.path}/{known['id']}/versions", body)
        else:
            named = {"name": name, "resource_id": cloud["id"]}
            known = await client.call("POST", TEMPLATE.path, body | named)
            version = known["versions"][0]
        if approve:
            path = f"{TEMPLATE.path}/{known['id']}/versions/{version['version']}/approve"
            version = await client.call("POST", path)
        return known["name"], version

    called, version = ask(context, work)
    show.say(f"{called} version {version['version']}, {version['disk_gib']:.2g} GiB: {version['state']}")


def _change_version(context: typer.Context, name: str, number: int | None, verb: str) -> None:
    async def work(client: Client) -> Any:
        known = await find(client, TEMPLATE, name)
        version = number or max(one["version"] for one in known["versions"])
        return await client.call("POST", f"/v1/templates/{known['id']}/versions/{version}/{verb}")

    changed = ask(context, work)
    show.say(f"{name} version {changed['version']}: {changed['state']}")


@templates.command("approve")
def approve_template(context: typer.Context, name: Name, version: Version = None) -> None:
    """Let a draft be deployed."""
    _change_version(context, name, version, "approve")


@templates.command("revoke")
def revoke_template(context: typer.Context, name: Name, version: Version = None) -> None:
    """Withdraw a version for good; its machines drain."""
    _change_version(context, name, version, "revoke")


@templates.command("list")
def list_templates(context: typer.Context, json_: AsJson = False) -> None:
    """Every template and its versions."""
    found = ask(context, lambda client: client.pages(TEMPLATE.path))
    if json_:
        show.as_json(found)
        return
    columns = ["name", "version ", "state", "derived from", "holds", "reference", "guest"]
    show.table(columns, [_row(one, version) for one in found for version in one["versions"]])


@templates.command("show")
def show_template(context: typer.Context, name: Name, json_: AsJson = False) -> None:
    """One template: its versions, and what each was derived from."""

    async def work(client: Client) -> tuple[Item, list[Item]]:
        known = await find(client, TEMPLATE, name)
        derivations = await client.pages(f"{TEMPLATE.path}/{known['id']}/derivations")
        return known, derivations

    found, derivations = ask(context, work)
    if json_:
        show.as_json({**found, "derivations": derivations})
        return
    show.say(f"{found['name']}, {len(found['versions'])} versions")
    columns = ["version ", "state", "derived from", "holds", "reference", "made"]
    rows = [[*_row(found, one)[1:6], show.moment(one["created_at"])] for one in found["versions"]]
    show.table(columns, rows)
    _tell_derivations(derivations[:10])


@templates.command("derive")
def derive_template(  # noqa: PLR0913, PLR0917 - each option of a command is a parameter
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="NAME, its newest approved version, or NAME:VERSION.")],
    with_: Annotated[str, typer.Option("--with", help="What to put in: boinc,agent,ca.")],
    auto_approve: Annotated[bool, typer.Option(help="Let the new version be deployed at once.")] = False,
    ca_file: Annotated[
        Path | None, typer.Option(help="PEM of your authority, with the component ca.")
    ] = None,
    proxy: Annotated[str | None, typer.Option(help="HOST:PORT by which packages are fetched.")] = None,
    within: Annotated[float, typer.Option(help="Minutes after which it has failed.")] = 60.0,
) -> None:
    """Make a new version: a small machine installs what is asked for, turns itself off and becomes a template."""
    body = {
        "components": _words(with_),
        "ca_pem": read_ca(ca_file),
        "proxy": proxy,
        "auto_approve": auto_approve,
        "within_minutes": within,
    }

    async def work(client: Client) -> Any:
        names = {one["name"] for one in await client.pages(TEMPLATE.path)}
        known = await find(client, TEMPLATE, name if name in names else _split(name)[0])
        known, version = _version_of([known], name)
        path = f"{TEMPLATE.path}/{known['id']}/versions/{version['version']}/derive"
        return await client.call("POST", path, body)

    begun = ask(context, work)
    show.say(
        f"a version is being derived from version {begun['source']} until {show.moment(begun['until'])} UTC;"
        " `tides template show` tells how it goes"
    )


@templates.command("cancel")
def cancel_derivation(context: typer.Context, name: Name) -> None:
    """End what is being derived from a template; nothing of it is left in the cloud."""

    async def work(client: Client) -> list[Item]:
        known = await find(client, TEMPLATE, name)
        path = f"{TEMPLATE.path}/{known['id']}/derivations"
        running = [one for one in await client.pages(path) if one["state"] == "running"]
        if not running:
            raise Failed(f"nothing is being derived from {plain(name)!r}")
        return [await client.call("POST", f"{path}/{one['id']}/cancel") for one in running]

    for ended in ask(context, work):
        show.say(f"derivation from version {ended['source']}: {ended['state']}")


def _tell_derivations(derivations: list[Item]) -> None:
    """The newest few, with what to do where the last that is over failed."""
    if not derivations:
        return
    columns = ["derived from ", "with", "state", "step", "why", "until"]
    rows = [
        [
            one["source"],
            ", ".join(one["components"]),
            one["state"],
            one["step"],
            one["reason"],
            show.moment(one["until"]),
        ]
        for one in derivations
    ]
    show.table(columns, rows)
    last = next((one for one in derivations if one["state"] != "running"), None)
    if last is not None and last["remedy"]:
        show.say(f"derivation from version {last['source']} failed: {last['reason']}. {last['remedy']}")


def _row(template: Item, version: Item) -> list[object]:
    origin, state = version["derived_from"], version["state"] + (", missing" if version["missing"] else "")
    came_from = f"{origin['name']}:{origin['version']}" if origin else ""
    if origin and origin["state"] == "revoked":
        came_from += " (revoked)"
    held = ", ".join(version["components"])
    return [
        template["name"],
        version["version"],
        state,
        came_from,
        held,
        version["reference"],
        version["guest_os"],
    ]


def _words(given: str) -> list[str]:
    return [word.strip() for word in given.split(",") if word.strip()]


def _version_of(templates: list[Item], wanted: str) -> tuple[Item, Item]:
    """`NAME`, its newest approved version, or `NAME:VERSION`; a template's id serves as its name."""
    is_name = any(wanted == one["name"] for one in templates)  # `debian:12` may be one
    name, number = (wanted, "") if is_name else _split(wanted)
    known = _template_of(templates, name)
    versions = {one["version"]: one for one in known["versions"]}
    approved = [one["version"] for one in known["versions"] if one["state"] == "approved"]
    chosen = int(number) if number else max(approved, default=None)
    if chosen is None or chosen not in versions:
        which = f"version {number}" if number else "approved version"
        raise Failed(f"template {plain(name)} has no {which}; `tides template show` lists what there is")
    return known, versions[chosen]


def _split(wanted: str) -> tuple[str, str]:
    """The name and the number of `NAME:VERSION`; without a number it is empty."""
    name, _, number = wanted.rpartition(":")
    return (name, number) if name and number.isdecimal() else (wanted, "")


def _template_of(templates: list[Item], name: str) -> Item:
    known = next((one for one in templates if name in (one["name"], one["id"])), None)
    if known is None:
        there = ", ".join(sorted({plain(one["name"]) for one in templates})) or "none"
        raise Failed(f"the resource has no template called {plain(name)!r}; there are: {there}")
    return known
