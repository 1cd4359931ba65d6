"""`tides policy`: the rules by which a cluster lends."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from services.cli import backtest, show
from services.cli.access import ask
from services.cli.client import Client, Failed
from services.cli.names import CLUSTER, POLICY, RESOURCE, find
from services.cli.watching import AsJson

policies = typer.Typer(no_args_is_help=True, help="Rules by which a cluster lends.")
policies.command("backtest", cls=backtest.OneOrTwoDays)(backtest.backtest)
File = Annotated[Path, typer.Option("--file", "-f", help="YAML, or JSON by its ending.")]
Name = Annotated[str, typer.Argument(help="Name or id.")]
_LARGEST = 1_048_576


def _read(path: Path) -> tuple[bytes, dict[str, str]]:
    """A document as it is, and the header that says what it is."""
    try:
        if path.stat().st_size > _LARGEST:
            raise Failed(f"--file: {path} is longer than {_LARGEST // 1024} KiB")
        data = path.read_bytes()
    except OSError as error:
        raise Failed(f"--file: {path}: {error.strerror}") from None
    return data, {"Content-Type": "application/json" if path.suffix == ".json" else "application/yaml"}


@policies.command("create")
def create(context: typer.Context, file: File) -> None:
    """Keep a policy under its name. It is in force where it is assigned."""
    data, kind = _read(file)
    made = ask(context, lambda client: client.call("POST", "/v1/policies", data=data, headers=kind))
    show.say(
        f"{made['name']} is kept as revision {made['revision']}; put it in force with `tides policy assign`"
    )


@policies.command("revise")
def revise(context: typer.Context, name: Name, file: File) -> None:
    """Add a revision; it is in force at once wherever the policy is assigned."""
    data, kind = _read(file)

    async def work(client: Client) -> Any:
        known = await find(client, POLICY, name)
        headers = {**kind, "If-Match": f'"{known["revision"]}"'}
        return await client.call("PUT", f"/v1/policies/{known['id']}", data=data, headers=headers)

    made = ask(context, work)
    show.say(f"{made['name']} is at revision {made['revision']}, in force at {made['assignments']} places")


@policies.command("validate")
def validate(context: typer.Context, file: File) -> None:
    """Whether a file is a policy; names the first wrong field."""
    data, kind = _read(file)
    checked = ask(
        context, lambda client: client.call("POST", "/v1/policies/validate", data=data, headers=kind)
    )
    show.say(f"{checked['name']} is a policy")


@policies.command("presets")
def presets(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Print this one as YAML.")] = None,
) -> None:
    """Policies to begin with: `tides policy presets balanced > policy.yaml`, then add `machine`."""
    found = ask(context, lambda client: client.call("GET", "/v1/policies/presets"))
    documents = {item["name"]: item["document"] for item in found["items"]}
    if name is None:
        show.say(", ".join(documents))
        return
    if name not in documents:
        raise Failed(f"no preset is called {name!r}; there are: {', '.join(documents)}")
    print(yaml.safe_dump(documents[name], sort_keys=False), end="")
    print("# What one machine is made of, and from which template:")
    print("machine: {template: boinc-worker, vcpus: 16, memory_mib: 32768, disk_gib: 20}")
    print("# or a part of a host, as `tides resource sizes` lists them:")
    print("# machine: {template: boinc-worker, size: half, disk_gib: 20}")


@policies.command("assign")
def assign(
    context: typer.Context,
    policy: Name,
    resource: Annotated[str | None, typer.Option()] = None,
    cluster: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Put a policy in force for a resource or one of its clusters; the nearest wins."""
    if (resource is None) == (cluster is None):
        raise typer.BadParameter("give either --resource or --cluster")
    kind, wanted = (RESOURCE, resource) if resource is not None else (CLUSTER, cluster)

    async def work(client: Client) -> str:
        known, place = await find(client, POLICY, policy), await find(client, kind, wanted or "")
        body = {"scope": kind.noun, "scope_id": place["id"]}
        await client.call("POST", f"/v1/policies/{known['id']}/assignments", body)
        return f"{known['name']} revision {known['revision']} is in force for {kind.noun} {place['name']}"

    show.say(ask(context, work))


@policies.command("list")
def list_policies(context: typer.Context, json_: AsJson = False) -> None:
    """Every policy."""
    found = ask(context, lambda client: client.pages(POLICY.path))
    if json_:
        show.as_json(found)
        return
    rows = [
        [
            one["name"],
            one["revision"],
            one["assignments"],
            one["document"]["machine"]["template"],
            _quota(one["document"].get("quota")),
        ]
        for one in found
    ]
    show.table(["name", "revision ", "in force at ", "template", "quota of the organisation"], rows)


def _quota(quota: dict[str, Any] | None) -> str:
    """What a policy bounds beyond its own cluster."""
    kinds = {"machines": "machines", "vcpus": "vCPUs", "memory_mib": "MiB memory", "disk_gib": "GiB disk"}
    told = [
        f"{quota[kind]:.10g} {what}" for kind, what in kinds.items() if quota and quota.get(kind) is not None
    ]
    return ", ".join(told) or "none"


@policies.command("show")
def show_policy(context: typer.Context, name: Name) -> None:
    """A policy as YAML, with every default filled in."""
    found = ask(context, lambda client: find(client, POLICY, name))
    print(yaml.safe_dump(found["document"], sort_keys=False), end="")
