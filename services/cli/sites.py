"""`tides resource hosts`: what the hosts of a cloud are made of."""

from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.access import ask
from services.cli.names import RESOURCE, find

Name = Annotated[str, typer.Argument(help="Name or id.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


def list_hosts(context: typer.Context, name: Name, json_: AsJson = False) -> None:
    """The hosts of a cloud: cores, memory, GPUs, and what they are good for."""
    found = ask(context, lambda client: find(client, RESOURCE, name))
    if json_:
        show.as_json([{"cluster": cluster["name"], **host} for cluster, host in _hosts(found)])
        return
    columns = ["host", "cluster", "cores ", "threads ", "NUMA ", "GHz ", "GiB ", "GPUs ", "model", "class"]
    show.table(columns, [_row(cluster, host) for cluster, host in _hosts(found)])
    if any(host["gpus"] is None for _, host in _hosts(found)):
        show.say("? is not known: the cloud does not say, or not to this account")


def _hosts(resource: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(cluster, host) for cluster in resource["clusters"] for host in cluster["hosts"]]


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
