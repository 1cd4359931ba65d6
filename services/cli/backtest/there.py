"""A backtest on a cluster's own history, worked out by stats."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.cli.backtest.here import Named, bar
from services.cli.backtest.results import Result
from services.cli.client import Client, Failed
from services.cli.names import CLUSTER, find

BACKTESTS = "/v1/stats/backtests"
LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of stats for every policy."""

    cluster: str
    days: int
    guard_seconds: float
    actuator: str


async def replay_there(client: Client, policies: Named, question: Question) -> list[Result]:
    """Every policy's replay, one after the other; who interrupts cancels the one that runs."""
    cluster = await find(client, CLUSTER, question.cluster)
    results = []
    with bar("%") as progress:
        for name, document, is_preset in policies:
            rules = {"preset": name.partition(":")[2]} if is_preset else {"policy": document}
            body = {
                "cluster_id": cluster["id"],
                "days": question.days,
                "guard_seconds": question.guard_seconds,
                "actuator": question.actuator,
                **rules,
            }
            task = progress.add_task(name, total=100.0)
            asked = await client.call("POST", BACKTESTS, body)
            path, found = f"{BACKTESTS}/{asked['id']}", asked
            try:
                while found["state"] in ("queued", "running"):
                    await asyncio.sleep(LOOK_EVERY_S)
                    found = await client.call("GET", path)
                    progress.update(task, completed=100.0 * found["progress"])
            except asyncio.CancelledError:
                with suppress(Failed):
                    await client.call("POST", f"{path}/cancel")
                raise
            results.append(_to_result(name, found))
    return results


def _to_result(name: str, found: dict[str, Any]) -> Result:
    if found["state"] != "done":
        raise Failed(f"{name}: {found['error'] or 'the backtest was cancelled'}")
    result = found["result"]
    series = result["series"]
    return Result(
        name,
        result["figures"],
        series["owner"],
        series["lent"],
        series["at_s"],
        series["step_s"],
        datetime.fromisoformat(found["since"]),
        result["sentence"],
        result["covered_percent"],
    )
