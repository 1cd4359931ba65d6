"""`tides project`: to whom can be lent, what they say of themselves, and to which terms somebody agreed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.access import ask
from services.cli.boinc import AGREED_DIGITS
from services.cli.client import Client, Failed
from services.cli.names import PROJECT, find
from services.cli.watching import AsJson

MOST_OF_A_BLOCK = 600
LISTED = "/v1/listed-projects"

projects = typer.Typer(no_args_is_help=True, help="BOINC projects.")
Named = Annotated[str, typer.Argument(help="Name or id.")]


@projects.command("add")
def add_project(
    context: typer.Context,
    name: str,
    url: Annotated[str, typer.Argument(help="Master URL; left out for a project of the catalogue.")] = "",
    check: Annotated[bool, typer.Option(help="Ask the project first who it is.")] = True,
) -> None:
    """Add a project that can be lent to, under the address that it gives for itself."""

    async def work(client: Client) -> Any:
        address = url or await _address_of(client, name)
        return await client.call("POST", PROJECT.path, {"name": name, "url": address, "verify": check})

    added = ask(context, work)
    show.say(f"{added['name']} at {added['url']}")


@projects.command("list")
def list_projects(context: typer.Context, json_: AsJson = False) -> None:
    """Every project, how it was when it was last heard, and what was agreed to."""
    found = ask(context, lambda client: client.pages(PROJECT.path))
    if json_:
        show.as_json(found)
        return
    rows = [
        [one["name"], one["url"], _state(one), _terms(one), "yes" if one["url_signature"] else "no"]
        for one in found
    ]
    show.table(["name", "url", "state", "terms", "signed"], rows)


@projects.command("catalogue")
def show_catalogue(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Option(help="Take this all_projects_list.xml, as every BOINC client has it, as the catalogue."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also those without work for plain Linux.")] = False,
    json_: AsJson = False,
) -> None:
    """The known projects of the world, by area; those with work for plain Linux machines."""

    async def work(client: Client) -> list[dict[str, Any]]:
        if file is not None:
            await client.call("PUT", LISTED, data=_read(file), headers={"Content-Type": "application/xml"})
        return await client.pages(LISTED, runs_here=not all_)

    found = ask(context, work)
    if json_:
        show.as_json(found)
        return
    if not found:
        raise Failed("the catalogue is empty: give --file all_projects_list.xml of a BOINC client")
    found.sort(key=lambda one: (one["area"], one["specific_area"]))
    rows = [[one["name"], one["area"], one["specific_area"], one["home"], one["url"]] for one in found]
    show.table(["name", "area", "about", "run by", "url"], rows)


@projects.command("check")
def check_project(context: typer.Context, project: Named, json_: AsJson = False) -> None:
    """Ask the project itself: its address, whether it takes new accounts, its terms."""

    async def work(client: Client) -> Any:
        known = await find(client, PROJECT, project)
        return await client.call("POST", f"/v1/projects/{known['id']}/check")

    found = ask(context, work)
    if json_:
        show.as_json(found)
        return
    same = "" if found["is_canonical"] else " (kept here under another address: add it anew)"
    rows = [
        ["name", found["name"]],
        ["address", found["master_url"] + same],
        ["state", "down" if found["is_down"] else "up"],
        ["plain Linux", "yes" if found["runs_here"] else "no"],
        ["hindrances", ", ".join(found["hindrances"]) or "none"],
        ["terms", found["terms_sha256"][:AGREED_DIGITS]],
    ]
    show.table(["what", "it says"], rows)
    if found["terms"]:
        show.say(found["terms"])


@projects.command("agree")
def agree_to_terms(
    context: typer.Context,
    project: Named,
    terms: Annotated[str, typer.Option(help="Hash of the terms, which you have read.")] = "",
) -> None:
    """Agree for your organisation to the terms that the project has now; who, when and which is kept."""

    async def work(client: Client) -> Any:
        known = await find(client, PROJECT, project)
        found = await client.call("POST", f"/v1/projects/{known['id']}/check")
        whole = found["terms_sha256"]
        if len(terms) < AGREED_DIGITS or not whole.startswith(terms):
            show.say(found["terms"])
            raise Failed(
                f"--terms: read the project's terms above, then give --terms {whole[:AGREED_DIGITS]}"
            )
        return await client.call("PUT", f"/v1/projects/{known['id']}/consent", {"terms_sha256": whole})

    agreed = ask(context, work)
    consent = agreed["consent"]
    show.say(
        f"{consent['user_name']} agreed to terms {consent['terms_sha256'][:AGREED_DIGITS]} of {agreed['name']}"
    )


@projects.command("terms")
def show_terms(
    context: typer.Context,
    project: Named,
    terms: Annotated[
        str, typer.Option(help="Hash of terms that were agreed to, or its first digits; left out: the last.")
    ] = "",
) -> None:
    """What somebody of your organisation agreed to, word for word, and who; the project may have other terms by now."""

    async def work(client: Client) -> Any:
        known = await find(client, PROJECT, project)
        path = f"/v1/projects/{known['id']}/consents"
        found = [one for one in await client.pages(path) if one["terms_sha256"].startswith(terms)]
        if not found:
            raise Failed(f"--terms: nobody of your organisation agreed to such terms of {known['name']}")
        return await client.call("GET", f"{path}/{found[-1]['terms_sha256']}")

    agreed = ask(context, work)
    digest = agreed["terms_sha256"][:AGREED_DIGITS]
    show.say(f"{agreed['user_name']} agreed on {show.moment(agreed['at'])} to terms {digest}")
    show.say(agreed["terms"] or "their text was not kept: it was agreed to before Tides kept texts")


@projects.command("sign")
def sign_project(
    context: typer.Context,
    project: Named,
    signature: Annotated[
        typer.FileText, typer.Option(help="What `tides boinc sign` printed; - for standard input.")
    ],
) -> None:
    """Keep the signature of a project's URL, without which no client attaches by its account manager."""
    block = signature.read(MOST_OF_A_BLOCK)

    async def work(client: Client) -> Any:
        known = await find(client, PROJECT, project)
        return await client.call("PATCH", f"/v1/projects/{known['id']}", {"url_signature": block})

    signed = ask(context, work)
    show.say(f"{signed['name']} at {signed['url']} is signed")


async def _address_of(client: Client, name: str) -> str:
    listed = await client.pages(LISTED)
    found = [one["url"] for one in listed if one["name"].casefold() == name.casefold()]
    if len(found) != 1:
        raise Failed(f"URL: the catalogue has {len(found) or 'no'} of this name; give its master URL")
    return str(found[0])


def _state(project: dict[str, Any]) -> str:
    seen = project["seen"]
    if seen is None:
        return "never asked"
    if seen["trouble"]:
        since = show.moment(seen["failing_since"])
        return f"{seen['trouble']} (since {since})" if since else str(seen["trouble"])
    is_canonical = seen["master_url"] == project["url"]
    return "up" if is_canonical else f"calls itself {seen['master_url']}"


def _terms(project: dict[str, Any]) -> str:
    if project["terms_changed"]:
        return "changed: read and agree anew"
    return "agreed" if project["consent"] else "-"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Failed(f"--file: {file}: {error.strerror}") from None
