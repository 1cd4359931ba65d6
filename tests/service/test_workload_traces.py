"""A sample, what was decided upon it, and what was done about that are one trace, whichever replica did it."""

from contextlib import AsyncExitStack

from libs.common.contracts.action import LimitsApplied, MachineRequested
from libs.common.runner import running
from services.workload.main import build
from tests.service.workload_house import House, open_house
from tests.traces import Notebook, Seen, lineage

SAMPLED, APPLIED, REQUESTED = "usage.sampled.v1", LimitsApplied.key, MachineRequested.key


def names(house_spans: list[Seen], last: Seen) -> list[str]:
    return [span.name for span in lineage(house_spans, last)]


async def sampled(house: House, monitor: Notebook) -> None:
    """What a monitor that is traced does on its tick."""
    samples = await house.measure()
    with monitor.tracing.work("monitor.round"):
        await house.publish(*samples)


async def test_an_act_is_found_under_the_decision_and_the_sample_behind_it(database_url: str) -> None:
    monitor, replicas = Notebook("monitor"), [Notebook("one"), Notebook("two")]
    async with open_house(database_url, replicas=0) as house, AsyncExitStack() as stack:
        for notebook in replicas:
            made = running([build], house.settings, clock=house.clock, tracing=notebook.tracing)
            house.replicas.append(await stack.enter_async_context(made))
        stack.callback(house.replicas.clear)
        await house.lend()
        await house.be_silent(20)
        await sampled(house, monitor)
        await house.be_silent(20)
        house.own(0.5)
        await house.be_silent(20)
        await sampled(house, monitor)
        await house.be_silent(10)
        spans = [span for notebook in (monitor, *replicas) for span in notebook.spans]
        decisions = (await house.ask("GET", "/v1/decisions")).body["items"]

    decided = ["monitor.round", f"process workload.{SAMPLED}", "decide"]
    first, second = (span for span in spans if span.name == "monitor.round")
    creates = [span for span in spans if span.name == "machine.create"]
    assert len(creates) == 2
    for create in creates:
        assert names(spans, create) == [*decided, "machine.create"]
        assert create.trace_id == first.trace_id
        assert create.facts["tides.cluster"] == "lab"
    (asked, *_) = (span for span in spans if span.name == f"publish {REQUESTED}")
    assert names(spans, asked) == [*decided, f"publish {REQUESTED}"]
    applied = [span for span in spans if span.name == f"publish {APPLIED}"]
    (cut,) = (span for span in applied if span.trace_id == second.trace_id)
    assert names(spans, cut) == [*decided, "limits.apply", f"publish {APPLIED}"]
    judged = [span for span in spans if span.name == "decide" and "tides.decision" in span.facts]
    kept = {decision["id"]: decision["decision"].get("traceparent") for decision in decisions}
    for span in judged:
        assert kept[str(span.facts["tides.decision"])].startswith(f"00-{span.trace_id}-{span.span_id}-")
