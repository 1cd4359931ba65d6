"""`tides resource remove`, `abandoned`: the end of a cloud, with its machines or without asking it."""

from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.access import ask
from services.cli.client import Client
from services.cli.names import RESOURCE, find
from services.cli.sweeps import insist
from services.cli.watching import AsJson

Name = Annotated[str, typer.Argument(help="Name or id.")]


def add_to(resources: typer.Typer) -> None:
    """Put the commands on `tides resource`."""
    resources.command("remove")(remove_resource)
    resources.command("abandoned")(list_abandoned)


def remove_resource(
    context: typer.Context,
    name: Name,
    force: Annotated[bool, typer.Option(help="Destroy machines without waiting for their work.")] = False,
    abandon: Annotated[
        bool, typer.Option(help="Forget a cloud that does not answer, at once and without asking it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --abandon: do not ask for the name.")] = False,
) -> None:
    """Drain a cloud, then forget it. One that is gone for good is abandoned: its machines are written off."""
    if abandon and force:
        raise typer.BadParameter(
            "--force destroys machines, --abandon asks the cloud for nothing and leaves them: give one"
        )
    if abandon:
        _abandon(context, name, is_sure=yes)
        return

    async def work(client: Client) -> Any:
        known = await find(client, RESOURCE, name)
        return await client.call("DELETE", f"/v1/resources/{known['id']}", params={"force": force})

    removed = ask(context, work)
    show.say(f"{removed['name']} drains; it is gone when nothing of ours is left on it")
    if removed["health"]["state"] == "degraded":
        show.say(f"it does not answer ({removed['health']['cause']}); if it never will again: --abandon")


def _abandon(context: typer.Context, name: str, *, is_sure: bool) -> None:
    known = ask(context, lambda client: find(client, RESOURCE, name))
    if not is_sure:
        show.say(
            f"{known['name']} at {known['url']} will be forgotten without being asked. Machines of ours that run"
            " there go on, and nobody looks after them any more."
        )
        insist(known["name"], "Type its name to abandon it")

    async def work(client: Client) -> Any:
        return await client.call("DELETE", f"/v1/resources/{known['id']}", params={"abandon": True})

    _tell(ask(context, work))


def list_abandoned(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Name or id; left out: all.")] = None,
    json_: AsJson = False,
) -> None:
    """Clouds that were abandoned, and which machines may run there still."""
    found = ask(context, lambda client: client.pages("/v1/abandonments"))
    if name is not None:
        found = [one for one in found if name in (one["name"], one["resource_id"])]
    if json_:
        show.as_json(found)
        return
    for one in found:
        _tell(one)
    if not found:
        show.say("no cloud has been abandoned" if name is None else f"{name} has not been abandoned")


def _tell(one: dict[str, Any]) -> None:
    show.say(f"{one['name']} at {one['url']}: {one['reason']} ({show.moment(one['at'])})")
    machines = one["machines"]
    if machines is None:
        show.say(
            "which machines may run there is not known yet: workload has not answered;"
            f" ask again with `tides resource abandoned {one['name']}`"
        )
        return
    if not machines:
        show.say("no machine of ours is known there")
        return
    rows = [
        [left["name"], left["cluster"], left["host"], left["state"], left["power"] or "never seen"]
        for left in machines
    ]
    show.table(["may run still", "cluster", "host", "was", "power"], rows)
    show.say(one["find"])
