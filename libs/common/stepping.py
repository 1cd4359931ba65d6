"""Moving a stepped clock: only when nothing is left to do, so that an accelerated run repeats exactly."""

import asyncio
from datetime import datetime

from libs.common.bus.base import Bus
from libs.common.clock import SteppedClock
from libs.common.wake import Activity

_LOOK_AGAIN_S = 0.001


async def settle(activity: Activity, bus: Bus) -> None:
    """Return once no beat runs, no handler runs, no outbox is being relayed and every queue is empty."""
    while True:
        await activity.idle()
        if await bus.depth() == 0 and activity.is_idle:
            return
        await asyncio.sleep(_LOOK_AGAIN_S)


async def step_until(clock: SteppedClock, activity: Activity, bus: Bus, until: datetime) -> None:
    """Let time run to `until`, one due call after the other, each only after everything before has settled."""
    while True:
        await settle(activity, bus)
        due = clock.next_due()
        if due is None or due > until:
            return
        clock.advance()
