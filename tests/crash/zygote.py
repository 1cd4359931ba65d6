"""Plays in processes of their own: this one imports everything once, and each play is a fork of it.

Lines of JSON in, lines of JSON out: `{"do": "prepare" | "record" | "die" | "go_on", "folder": ..., "url": ...}`.
"""

import asyncio
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import services.cli.run
from libs.common.log import configure
from tests.crash.audit import audit
from tests.crash.points import Point, Points, instrument
from tests.crash.story import let_leases_end, on_stage, prepare

WITHIN_S = 120
FAILED = 3


async def act(order: dict[str, Any]) -> Any:
    """One play; what it has to say."""
    configure("ERROR", "json")
    folder, url = Path(order["folder"]), str(order["url"])
    if order["do"] == "prepare":
        await prepare(folder, url)
        return None
    points = Points(Point(**order["point"]) if order.get("point") else None)
    if order["do"] in ("record", "die"):
        instrument(points)
    else:
        await let_leases_end(url)
    async with on_stage(folder, url) as play:
        await play.run()
        troubles = await audit(play)
    return {"troubles": troubles, "seen": points.seen}


def fork(order: dict[str, Any]) -> int:
    """Play it in a child; the child's exit code."""
    pid = os.fork()
    if pid == 0:
        code = FAILED
        try:
            signal.alarm(WITHIN_S)
            log = os.open(f"{order['folder']}/{order['do']}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            answer = asyncio.run(act(order))
            Path(order["folder"], "answer.json").write_text(json.dumps(answer))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def main() -> None:
    """Until there are no more orders."""
    services.cli.run.builders(["all"])  # imports every service
    for line in sys.stdin:
        order = json.loads(line)
        sys.stdout.write(json.dumps({"code": fork(order)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
