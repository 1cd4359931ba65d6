"""`tides resource`: clouds."""

from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli import credentials, leaving, modes, show, sites
from services.cli.access import ask, read_secret
from services.cli.client import Client, Failed
from services.cli.names import RESOURCE, find
from services.cli.watching import AsJson

resources = typer.Typer(no_args_is_help=True, help="Clouds: register, look, lend, pause, drain, remove.")
modes.add_to(resources)
leaving.add_to(resources)
resources.command("hosts")(sites.list_hosts)
resources.command("sizes")(sites.list_sizes)
DECLARE = typer.Option(
    help="hosts=6,cores=80,memory_gib=768,gpus=8: what is there, where the cloud shows no hosts."
)
Name = Annotated[str, typer.Argument(help="Name or id.")]
_LARGEST_CA = 262_144


@resources.command("add")
def add_resource(  # noqa: PLR0913, PLR0917 - each option of a command is a parameter
    context: typer.Context,
    name: str,
    provider: Annotated[str, typer.Option(help="vsphere or simulated.")],
    url: Annotated[str, typer.Option()],
    user: Annotated[str, typer.Option()],
    password_stdin: Annotated[bool, typer.Option(help="The password is on standard input.")] = False,
    ca_file: Annotated[Path | None, typer.Option(help="PEM of the authority to trust.")] = None,
    thumbprint: Annotated[str | None, typer.Option(help="SHA-256 of the certificate to trust.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option(help="key=value of the driver; again for more.")
    ] = None,
    interval: Annotated[float, typer.Option(help="Seconds between two samples.")] = 20.0,
    probe: Annotated[
        bool, typer.Option("--probe", help="One machine must reach a project before it is lent.")
    ] = False,
    site: Annotated[str | None, typer.Option(help="Where it stands: the name of a place.")] = None,
    declare: Annotated[str | None, DECLARE] = None,
) -> None:
    """Register a cloud. It is only observed until `tides resource lend`."""
    body = {
        "name": name,
        "provider": provider,
        "url": url,
        "username": user,
        "ca_pem": read_ca(ca_file),
        "thumbprint": thumbprint,
        "settings": dict(_parse_setting(given) for given in setting or []),
        "interval_s": interval,
        "requires_probe": probe,
        "password": read_secret(f"Password of {user}", "--password-stdin", password_stdin),
    } | sites.to_standing(site, declare)
    added = ask(context, lambda client: client.call("POST", "/v1/resources", body))
    show.say(f"{added['name']} is registered as {added['id']}, mode {added['mode']}: nothing is touched")
    _tell_validation(added["validation"])


def read_ca(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        if path.stat().st_size > _LARGEST_CA:
            raise Failed(f"--ca-file: {path} is longer than {_LARGEST_CA // 1024} KiB")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"--ca-file: {path}: {getattr(error, 'strerror', None) or 'not a text file'}") from None


def _parse_setting(given: str) -> tuple[str, Any]:
    name, equals, value = given.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"--setting takes key=value, not {given!r}")
    if value in ("true", "false"):
        return name, value == "true"
    return name, int(value) if value.isdigit() else value


def _tell_validation(found: dict[str, Any] | None) -> None:
    if found is None:
        return
    if found["error"]:
        show.say(f"the last validation failed ({found['error']['cause']}): {found['error']['detail']}")
        return
    show.say(f"{found['product']}, API {found['api_version']}")
    show.table(
        ["cluster", "hosts ", "cores ", "CPU ", "memory "],
        [
            [
                one["name"],
                one["hosts"],
                one["cores"],
                show.ghz(one["cpu_mhz"]),
                f"{one['memory_mib'] / 1024:.0f} GiB",
            ]
            for one in found["clusters"]
        ],
    )
    for privilege in found["missing"]:
        show.say(f"missing privilege {privilege['privilege']}: without it {privilege['disables']}")
    for blocker in found.get("blockers", []):
        show.say(f"cannot be lent: {blocker['detail']} {blocker['remedy']}")
    for warning in found["warnings"]:
        show.say(f"warning: {warning}")


@resources.command("set")
def set_resource(  # noqa: PLR0913, PLR0917 - each option of a command is a parameter
    context: typer.Context,
    name: Name,
    rename: Annotated[str | None, typer.Option(help="Another name.")] = None,
    url: Annotated[str | None, typer.Option(help="Another address; needs the password.")] = None,
    user: Annotated[str | None, typer.Option(help="Another user name.")] = None,
    password_stdin: Annotated[bool, typer.Option(help="The password is on standard input.")] = False,
    ca_file: Annotated[
        Path | None, typer.Option(help="PEM of the authority to trust from now on; needs the password.")
    ] = None,
    thumbprint: Annotated[
        str | None, typer.Option(help="SHA-256 of the certificate to trust from now on; needs the password.")
    ] = None,
    interval: Annotated[float | None, typer.Option(help="Seconds between two samples.")] = None,
    probe: Annotated[
        bool | None, typer.Option(help="Whether one machine must reach a project before it is lent.")
    ] = None,
    site: Annotated[str | None, typer.Option(help="Where it stands; '' takes it away.")] = None,
    declare: Annotated[str | None, DECLARE] = None,
    alternate_user: credentials.User = None,
    alternate_password_stdin: credentials.PasswordStdin = False,
    no_alternate: credentials.No = False,
    stand_in: Annotated[
        str | None,
        typer.Option(help="What takes over what is lent to it alone while it is away; '' for nothing."),
    ] = None,
) -> None:
    """Change what a cloud is called, where it is and stands, or as whom it is asked; what is left out stays."""
    trust = _to_trust(ca_file, thumbprint)
    if password_stdin and alternate_password_stdin:
        raise typer.BadParameter("one password is on standard input: change one account at a time")
    given = {"name": rename, "url": url, "username": user, "interval_s": interval, "requires_probe": probe}
    body: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    body |= trust | sites.to_standing(site, declare)
    if password_stdin or body.keys() & {"url", "ca_pem"}:  # the secret is sealed for one address and pin
        body["password"] = read_secret(f"Password for {name}", "--password-stdin", password_stdin)
    body |= credentials.to_alternate(alternate_user, alternate_password_stdin, no_alternate)
    if not body and stand_in is None:
        raise typer.BadParameter("say what is to change: --help lists it")

    async def work(client: Client) -> tuple[Any, bool]:
        known = await find(client, RESOURCE, name)
        seen = {"If-Match": f'"{known["revision"]}"'}
        if stand_in is not None:
            body["stand_in_id"] = (await find(client, RESOURCE, stand_in))["id"] if stand_in else None
        changed = await client.call("PATCH", f"/v1/resources/{known['id']}", body, headers=seen)
        return changed, known["validation"] != changed["validation"]

    changed, is_validated = ask(context, work)
    show.say(
        f"{changed['name']}: {changed['url']} as {changed['username']}, every {changed['interval_s']:g} s"
    )
    credentials.tell_alternate(changed)
    if is_validated:
        _tell_validation(changed["validation"])


def _to_trust(ca_file: Path | None, thumbprint: str | None) -> dict[str, Any]:
    """What is to be trusted from now on, in place of what was; empty where nothing was given."""
    if ca_file is not None and thumbprint is not None:
        raise typer.BadParameter("give --ca-file or --thumbprint: one of them is trusted")
    if ca_file is None and thumbprint is None:
        return {}
    return {"ca_pem": read_ca(ca_file), "thumbprint": thumbprint}


@resources.command("list")
def list_resources(context: typer.Context, json_: AsJson = False) -> None:
    """Every registered cloud."""
    found = ask(context, lambda client: client.pages(RESOURCE.path))
    if json_:
        show.as_json(found)
        return
    rows = [
        [one["name"], one["provider"], _mode(one), one["health"]["state"], len(one["clusters"]), one["url"]]
        for one in found
    ]
    show.table(["name", "provider", "mode", "health", "clusters ", "url"], rows)


def _mode(resource: dict[str, Any]) -> str:
    if (resource.get("probe") or {}).get("outcome") == "open":
        return f"{resource['mode']}, probed"
    return f"{resource['mode']}, to be removed" if resource["deleting"] else str(resource["mode"])


@resources.command("show")
def show_resource(context: typer.Context, name: Name, json_: AsJson = False) -> None:
    """One cloud: health, alarm, clusters, what the last validation found."""
    found = ask(context, lambda client: find(client, RESOURCE, name))
    if json_:
        show.as_json(found)
        return
    health, alarm = found["health"], found["alarm"]
    show.say(f"{found['name']} ({found['id']}): {found['provider']} at {found['url']} as {found['username']}")
    since = f" since {show.moment(health['since'])}" if health["since"] else ""
    show.say(f"mode {_mode(found)}; {health['state']}{since} {health['detail'] or ''}".rstrip())
    credentials.tell_alternate(found)
    if found.get("stand_in_id"):
        others = ask(context, lambda client: client.pages(RESOURCE.path))
        names = {one["id"]: one["name"] for one in others}
        stand_in = names.get(found["stand_in_id"], "a resource that is gone")
        show.say(f"while it is away, what is lent to it alone goes to {stand_in}")
    if found.get("site"):
        show.say(f"stands at {found['site']}")
    modes.tell_probe(found)
    if alarm:
        show.say(f"the sweeper waits for a person: {alarm['reason']}")
    if found["capabilities"]:
        show.say(f"can: {', '.join(found['capabilities'])}")
    _tell_validation(found["validation"])


@resources.command("validate")
def validate_resource(context: typer.Context, name: Name) -> None:
    """Ask the cloud again what it is and what the account lacks."""

    async def work(client: Client) -> Any:
        known = await find(client, RESOURCE, name)
        return await client.call("POST", f"/v1/resources/{known['id']}/validate")

    _tell_validation(ask(context, work))
