"""`tides chaos`: kills processes of an installation at random, starts them again, and shows that nothing was lost."""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from libs.common.clock import WallClock
from libs.common.log import configure
from services.cli import show
from services.cli.access import ask
from services.cli.chaos import targets
from services.cli.chaos.audit import Account, Acts, Auditor
from services.cli.chaos.blows import Blow, Hand, Victim, Weather, plan
from services.cli.client import Client, Failed
from services.cli.watching import AsJson

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
MOST_HOURS = 24


def seconds(text: str) -> float:
    """`10`, `10s`, `500ms`, `2m` as seconds. Raises typer.BadParameter."""
    number = text.rstrip("hms")
    try:
        found = float(number) * _UNITS_S[text[len(number) :] or "s"]
    except (ValueError, KeyError):
        raise typer.BadParameter(f"{text!r} is no time; give 10s, 500ms or 2m") from None
    if not 0.1 <= found <= 3600:
        raise typer.BadParameter("between 0.1 s and an hour")
    return found


@dataclass(frozen=True)
class Place:
    """How the processes are reached: one way."""

    pids: Path | None
    systemd: bool
    compose: str | None
    kubernetes: str | None
    release: str

    async def victims(self, only: frozenset[str]) -> dict[str, Victim]:
        """Everybody who may be hit. Raises Failed where nobody is found."""
        found = await self._find()
        if only:
            found = {name: each for name, each in found.items() if any(word in name for word in only)}
        if not found:
            among = f" among which {', '.join(sorted(only))} are named" if only else ""
            raise Failed(f"no process of Tides was found{among}")
        return found

    async def _find(self) -> dict[str, Victim]:
        if self.pids is not None:
            return await targets.by_pid_files(self.pids)
        if self.systemd:
            return await targets.by_systemd()
        if self.compose is not None:
            return await targets.by_compose(self.compose)
        return await targets.by_kubernetes(self.kubernetes or "", self.release)


def chaos(  # noqa: PLR0913, PLR0917 - each option of a command is a parameter
    context: typer.Context,
    pids: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of NAME.pid, one a process.")
    ] = None,
    systemd: Annotated[bool, typer.Option("--systemd", help="The tides@... units of this machine.")] = False,
    compose: Annotated[str | None, typer.Option(help="A project of Docker Compose.")] = None,
    kubernetes: Annotated[str | None, typer.Option(help="A namespace.")] = None,
    release: Annotated[str, typer.Option(help="With --kubernetes: the release of the chart.")] = "tides",
    mean: Annotated[str, typer.Option(help="Mean time between two blows (exponential).")] = "10s",
    fraction: Annotated[float, typer.Option(min=0, max=1, help="Share of the processes a blow.")] = 0.3,
    force: Annotated[float, typer.Option(min=0, max=1, help="Share that is killed, not stopped.")] = 0.5,
    minutes: Annotated[float, typer.Option(min=0.05, max=60 * MOST_HOURS, help="For so long.")] = 3.0,
    seed: Annotated[int | None, typer.Option(help="Of blows to deal again.")] = None,
    only: Annotated[str, typer.Option(help="Names, such as monitor,workload; left out: all.")] = "",
    lending: Annotated[
        bool, typer.Option("--lending", help="Also while a resource lends: machines are at stake.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    settle: Annotated[str, typer.Option(help="For so long accounts may disagree afterwards.")] = "120s",
    json_: AsJson = False,
) -> None:
    """Kill and stop processes at random times, start them again, then audit: exit 1 if an account does not agree.

    It says what it would do unless --yes is given. Ctrl-C ends the blows; what lies is started again.
    """
    if [pids is not None, systemd, compose is not None, kubernetes is not None].count(True) != 1:
        raise typer.BadParameter("give one of --pids, --systemd, --compose and --kubernetes")
    configure("CRITICAL", "console")  # what is lost while it is away is expected
    place = Place(pids, systemd, compose, kubernetes, release)
    weather = Weather(seconds(mean), fraction, force)
    chosen = secrets.randbits(32) if seed is None else seed
    names = frozenset(word.strip() for word in only.split(",") if word.strip())

    async def work(client: Client) -> dict[str, Any]:
        victims = await place.victims(names)
        blows = plan(list(victims), weather, minutes * 60, chosen)
        await _insist(client, victims, blows, is_sure=yes, may_lend=lending)
        return await _endure(client, Hand(victims), blows, seconds(settle))

    told = {"seed": chosen, **ask(context, work)}
    _show(told, as_json=json_)
    if not told["ok"]:
        raise typer.Exit(1)


async def _insist(
    client: Client, victims: Mapping[str, Victim], blows: list[Blow], *, is_sure: bool, may_lend: bool
) -> None:
    """Raises Failed unless a person means it, and knows that resources lend."""
    falls = sum(len(blow.falls) for blow in blows)
    what = f"{len(blows)} blows, {falls} falls of {len(victims)} processes: {', '.join(sorted(victims))}"
    if not is_sure:
        raise Failed(f"nothing was done; --yes deals {what}")
    lending = [each["name"] for each in await client.pages("/v1/resources") if each["mode"] == "lend"]
    if lending and not may_lend:
        raise Failed(f"{', '.join(lending)} lends: nothing was done; --lending does it all the same")
    show.note(what)


async def _endure(client: Client, hand: Hand, blows: list[Blow], settle_s: float) -> dict[str, Any]:
    """The blows, and the accounts afterwards."""
    clock = WallClock()
    log = Acts(client)
    await log.read(is_fresh=False)
    since = clock.now()
    try:
        failed = await deal_all(hand, blows)
    finally:
        await hand.raise_all()
    show.note("everything runs again; looking whether all accounts agree")
    accounts = [
        Account("falls", f"{hand.count.total()} falls", tuple(failed)),
        *await Auditor(client, since, clock.now(), log).settle(settle_s),
    ]
    return {
        "ok": not any(account.wrong for account in accounts),
        "minutes": round((clock.now() - since).total_seconds() / 60, 1),
        "blows": len(blows),
        "processes": sorted(hand.victims),
        "falls": dict(sorted(hand.count.items())),
        "accounts": [asdict(account) for account in accounts],
    }


async def deal_all(hand: Hand, blows: list[Blow]) -> list[str]:
    """Each at its time; one that lasts does not hold up the next, nor does one that fails. Tells what failed."""
    failed: list[str] = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for blow in blows:
            await asyncio.sleep(began + blow.at_s - loop.time())
            falls = (f"{fall.name} {'killed' if fall.by_force else 'stopped'}" for fall in blow.falls)
            show.note(f"{blow.at_s:7.1f} s  {', '.join(falls)}")
            group.create_task(_deal(hand, blow, failed))
    return failed


async def _deal(hand: Hand, blow: Blow, failed: list[str]) -> None:
    try:
        await hand.deal(blow)
    except Failed as error:
        show.note(str(error))
        failed.append(str(error))


def _show(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show.as_json(told)
        return
    rows = [[_word(account), account["name"], account["told"], _few(account)] for account in told["accounts"]]
    show.table(["", "account", "counted", "what does not agree"], rows)
    falls = ", ".join(f"{count} {word}" for word, count in told["falls"].items()) or "nothing fell"
    show.say(f"{falls} in {told['minutes']} minutes; the same blows again: --seed {told['seed']}")


def _word(account: dict[str, Any]) -> str:
    if not account["is_known"]:
        return "unknown"
    return "differs" if account["wrong"] else "agrees"


def _few(account: dict[str, Any], most: int = 5) -> str:
    more = f" and {len(account['wrong']) - most} more" if len(account["wrong"]) > most else ""
    return "; ".join(account["wrong"][:most]) + more
