"""What must hold of any log of action events, however it was read."""

from collections import Counter
from typing import Any

ONCE = ("requested", "deployed", "destroyed", "failed")
"""What happens once in a machine's life."""
ENDS = ("limits_applied", "limits_superseded")
"""The outcomes of limits: one each."""

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
    """What was said of acts that neither were applied nor superseded.

    The log's order is that of transactions, which need not be that of one act: a transaction that began sooner may
    have ended later. So it is looked for an end anywhere.
    """
    words: dict[str, list[str]] = {}
    for event in events:
        if "action_id" in event["body"]:
            words.setdefault(event["body"]["action_id"], []).append(word_of(event))
    return [f"{act}: {', '.join(said)}" for act, said in words.items() if not {*said} & {*ENDS}]


def ended_twice(events: list[Told]) -> list[str]:
    """Outcomes of acts that have more than one."""
    outcomes: dict[str, list[str]] = {}
    for event in events:
        if "action_id" in event["body"] and word_of(event) in ENDS:
            outcomes.setdefault(event["body"]["action_id"], []).append(word_of(event))
    return [" and ".join(words) for words in outcomes.values() if len(words) > 1]
