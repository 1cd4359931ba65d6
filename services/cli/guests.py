"""`tides guest`: how the agents in machines do, and what they are told."""

import re
from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.access import ask
from services.cli.client import Client, plain
from services.cli.names import MACHINE, find
from services.cli.watching import AsJson

guests = typer.Typer(no_args_is_help=True, help="Agents inside machines: look, throttle, stop.")
Name = Annotated[str, typer.Argument(help="The machine's name or id.")]
Reason = Annotated[str, typer.Option(help="Why; it is shown with the guest.")]
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@guests.command("list")
def list_guests(context: typer.Context, json_: AsJson = False) -> None:
    """Every guest: its health, its tasks, what was heard of it last, and its orders."""

    async def work(client: Client) -> tuple[list[dict[str, Any]], dict[str, str]]:
        found = await client.pages("/v1/guests")
        machines = await client.pages(MACHINE.path, live=True) if found else []
        return found, {one["id"]: one["name"] for one in machines}

    found, names = ask(context, work)
    if json_:
        show.as_json(found)
        return
    rows = [
        [
            names.get(one["machine_id"], one["machine_id"]),
            one["health"],
            f"{one['running']} of {one['tasks']}",
            show.moment(one["beat_at"]),
            _orders(one["orders"]),
            one["boinc_error"] or one["told_why"] or "",
        ]
        for one in found
    ]
    show.table(["machine", "health", "running ", "last heard", "orders", "trouble"], rows)


@guests.command("throttle")
def throttle(
    context: typer.Context,
    name: Name,
    percent: Annotated[
        float, typer.Option(min=0, max=100, help="Of its processors; 0: nothing is computed.")
    ],
    for_: Annotated[str, typer.Option("--for", help="How long: 90s, 30m, 2h, 1d; a week at most.")] = "1h",
    reason: Reason = "by hand",
) -> None:
    """Let a guest use only so much of its processors for a while; its next heartbeat fetches the order."""
    body = {"percent": percent, "for_s": _seconds(for_), "reason": reason}
    orders = _order(context, name, "throttle", body)["orders"]
    show.say(f"at most {orders['throttle_percent']:g} % until {show.moment(orders['throttle_until'])}")


@guests.command("stop")
def stop(context: typer.Context, name: Name, reason: Reason = "by hand") -> None:
    """Let a guest end its work at once, whatever is lost, and shut down; its machine is given up."""
    orders = _order(context, name, "stop", {"reason": reason})["orders"]
    show.say(f"told to stop; void if it does not fetch the order until {show.moment(orders['stop_until'])}")


def _order(context: typer.Context, name: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
    async def work(client: Client) -> Any:
        known = await find(client, MACHINE, name)
        return await client.call("POST", f"/v1/guests/{known['id']}/{what}", body)

    told: dict[str, Any] = ask(context, work)
    return told


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if found is None:
        raise typer.BadParameter("--for takes a number with s, m, h or d, as 30m")
    return float(found[1]) * _UNITS_S[found[2]]


def _orders(orders: dict[str, Any] | None) -> str:
    if orders is None:
        return ""
    told = []
    if orders["throttle_percent"] is not None:
        until, by = show.moment(orders["throttle_until"]), plain(orders["throttle_by"])
        told.append(f"{orders['throttle_percent']:g} % until {until} by {by}")
    if orders["cap_percent"] is not None:
        told.append(f"{orders['cap_percent']:g} % by workload")
    if orders["stop_until"] is not None:
        told.append(f"{'stopped' if orders['stopped_at'] else 'to stop'} by {plain(orders['stop_by'])}")
    if orders["error"]:
        told.append(f"failed: {plain(orders['error'])}")
    return "; ".join(told)
