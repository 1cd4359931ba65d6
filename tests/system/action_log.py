"""What must hold of any log of action events, however it was read."""

from collections import Counter
from typing import Any

ONCE = ("requested", "deployed", "destroyed", "failed")
"""What happens once in a machine's life."""
OPEN = ("limits_requested", "limits_failed")
"""Last words of limits that are no outcome."""

Told = dict[str, Any]


def word_of(event: Told) -> str:
    """What happened; of machines without saying so."""
    return str(event["key"].split(".")[1]).removeprefix("machine_")


def said_twice(events: list[Told]) -> list[str]:
    """Keys that came more than once for one act, or in one machine's life."""
    said = Counter(
        (event["key"], event["body"]["action_id"]) for event in events if "action_id" in event["body"]
    )
    said += Counter(
        (event["key"], event["machine_id"])
        for event in events
        if event["machine_id"] and word_of(event) in ONCE
    )
    return [key for (key, _), count in said.items() if count > 1]


def without_outcome(events: list[Told]) -> list[str]:
    """The last words of acts that neither were applied nor superseded."""
    last = {event["body"]["action_id"]: word_of(event) for event in events if "action_id" in event["body"]}
    return [word for word in last.values() if word in OPEN]
