"""`tides site` and `tides resource hosts`: what stands where, and what hosts are made of."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from services.cli import show
from services.cli.access import ask
from services.cli.client import Client, Failed, Refused, plain
from services.cli.names import RESOURCE, find
from services.cli.watching import AsJson

sites = typer.Typer(no_args_is_help=True, help="Places: the hosts, cores, memory and GPUs of each.")
Name = Annotated[str, typer.Argument(help="Name or id.")]
SiteName = Annotated[str, typer.Argument(help="Name.")]
_COLUMNS = ["hosts ", "cores ", "GiB ", "GPUs ", "low ", "medium GPU ", "HPC GPU "]
_DECLARED = (
    "--declare takes hosts=6,cores=80,memory_gib=768,gpus=8; gpus may be left out where they are not known"
)
_CLASSES = ("low", "medium_gpu", "hpc_gpu")


@sites.command("list")
def list_sites(context: typer.Context, json_: AsJson = False) -> None:
    """Every site, and all together."""
    found = ask(context, lambda client: client.call("GET", "/v1/sites"))
    if json_:
        show.as_json(found)
        return
    rows = [[one["name"], one["resources"], *_holdings(one)] for one in found["items"]]
    resources = sum(one["resources"] for one in found["items"])
    show.table(["site", "resources ", *_COLUMNS], [*rows, ["all", resources, *_holdings(found["total"])]])
    _tell_unknown(found["total"])
    if not rows:
        show.say("no resource has a site: tides resource set NAME --site PLACE")


@sites.command("show")
def show_site(context: typer.Context, name: SiteName, json_: AsJson = False) -> None:
    """One site and its resources."""

    async def read(client: Client) -> Any:
        try:
            return await client.call("GET", f"/v1/sites/{quote(name, safe='')}")
        except Refused as refused:
            if refused.status != 404:
                raise
            there = ", ".join(plain(one["name"]) for one in (await client.call("GET", "/v1/sites"))["items"])
            raise Failed(f"no site is called {plain(name)!r}; there are: {there or 'none yet'}") from None

    found = ask(context, read)
    if json_:
        show.as_json(found)
        return
    rows = [[one["name"], one["source"], *_holdings(one)] for one in found["standing"]]
    show.table([found["name"], "inventory", *_COLUMNS], [*rows, ["all", "", *_holdings(found)]])
    _tell_unknown(found)


def to_standing(site: str | None, declare: str | None) -> dict[str, Any]:
    """Where a resource stands and what is there, as far as that was given; an empty text takes it away."""
    given: dict[str, Any] = {} if site is None else {"site": site or None}
    return given if declare is None else given | {"declared": parse_declared(declare) if declare else None}


def parse_declared(text: str) -> dict[str, Any]:
    """What is said to stand there. Raises BadParameter."""
    given = dict(part.strip().partition("=")[::2] for part in text.split(","))
    wanted = {"hosts": int, "cores": int, "memory_gib": float}
    try:
        declared: dict[str, Any] = {name: read(given.pop(name)) for name, read in wanted.items()}
        declared["gpus"] = int(gpus) if (gpus := given.pop("gpus", None)) is not None else None
    except (KeyError, ValueError):
        raise typer.BadParameter(_DECLARED) from None
    if given:
        raise typer.BadParameter(_DECLARED)
    return declared


def _holdings(one: dict[str, Any]) -> list[object]:
    gpus = f"{one['gpus']} + ?" if one["hosts_of_unknown_gpus"] else one["gpus"]
    classes = [one["classes"].get(name, 0) for name in _CLASSES]
    return [one["hosts"], one["cores"], f"{one['memory_gib']:.0f}", gpus, *classes]


def _tell_unknown(one: dict[str, Any]) -> None:
    unknown = one["hosts_of_unknown_gpus"]
    if unknown:
        hosts = "1 host" if unknown == 1 else f"{unknown} hosts"
        show.say(f"+ ?: of {hosts} it is not known whether there are GPUs")


def list_hosts(context: typer.Context, name: Name, json_: AsJson = False) -> None:
    """The hosts of a cloud: cores, memory, GPUs, and what they are good for."""
    found = ask(context, lambda client: find(client, RESOURCE, name))
    hosts = [(cluster, host) for cluster in found["clusters"] for host in cluster["hosts"]]
    if json_:
        show.as_json([{"cluster": cluster["name"], **host} for cluster, host in hosts])
        return
    columns = ["host", "cluster", "cores ", "threads ", "NUMA ", "GHz ", "GiB ", "GPUs ", "model", "class"]
    show.table(columns, [_row(cluster, host) for cluster, host in hosts])
    if any(host["gpus"] is None for _, host in hosts):
        show.say("? is not known: the cloud does not say, or not to this account")


def list_sizes(context: typer.Context, name: Name, json_: AsJson = False) -> None:
    """Sizes of machines that a policy may name (`machine: {size: quarter}`), by the hosts of a cloud."""

    async def read(client: Client) -> Any:
        known = await find(client, RESOURCE, name)
        return await client.call("GET", f"/v1/resources/{known['id']}/sizes")

    found = ask(context, read)
    if json_:
        show.as_json(found)
        return
    scopes = [("every cluster", found["items"])]
    scopes += [(cluster["name"], cluster["items"]) for cluster in found["clusters"]]
    rows = [
        [scope, one["name"], one["vcpus"], f"{one['memory_mib'] / 1024:g}", show.ghz(one["cpu_mhz"])]
        for scope, items in scopes
        for one in items
    ]
    show.table(["fits", "size", "vCPUs ", "GiB ", "cores are worth "], rows)
    if not rows:
        show.say("no size is known: the cloud has not told what its hosts are made of")


def _row(cluster: dict[str, Any], host: dict[str, Any]) -> list[object]:
    clock = f"{host['cpu_mhz'] / host['cores'] / 1000:.2f}" if host["cores"] else "?"
    made_of = [_known(host[one]) for one in ("cores", "threads", "numa_nodes")]
    return [
        host["name"],
        cluster["name"],
        *made_of,
        clock,
        f"{host['memory_mib'] / 1024:.0f}",
        _known(host["gpus"]),
        ", ".join(host["gpu_models"]),
        _known(host["host_class"]),
    ]


def _known(value: object) -> object:
    return "?" if value is None else value
