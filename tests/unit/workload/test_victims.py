"""Who is given up first: what sleeps, then what loses the least work; and so it is carried out."""

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from libs.harvest.fleet import group_by_host, order_victims
from libs.harvest.types import Decision, MachineFact, Reason, ReasonCode, Rung, Verdict
from services.workload.domain.plan import MachineNow, plan_machines
from services.workload.domain.states import MachineState, Wanted

HOSTS = ("h1", "h2", "h3")
FLEETS = st.lists(
    st.tuples(
        st.sampled_from([*HOSTS, None]),
        st.sampled_from(["running", "suspended", "starting", "draining"]),
        st.floats(0, 1e6),
        st.floats(0, 1e6),
    ),
    max_size=12,
).map(
    lambda rows: [
        MachineFact(str(UUID(int=number)), host, state, 4, age_s, progress_s)
        for number, (host, state, age_s, progress_s) in enumerate(rows, start=1)
    ]
)


def victims_of(machines: list[MachineFact], able: tuple[str, ...] = HOSTS) -> list[MachineFact]:
    """The machines in the order in which they are given up."""
    by_name = {machine.machine: machine for machine in machines}
    return [by_name[name] for name in order_victims(group_by_host(machines, HOSTS), able)]


@given(FLEETS, st.sets(st.sampled_from(HOSTS)))
def test_everything_that_is_kept_is_named_once(machines: list[MachineFact], able: set[str]) -> None:
    named = [machine.machine for machine in victims_of(machines, tuple(able))]

    assert sorted(named) == sorted(m.machine for m in machines if m.state != "draining")


@given(FLEETS, st.sets(st.sampled_from(HOSTS)))
def test_what_sleeps_goes_before_what_works(machines: list[MachineFact], able: set[str]) -> None:
    works = [machine.state != "suspended" for machine in victims_of(machines, tuple(able))]

    assert works == sorted(works)


@given(FLEETS)
def test_then_goes_what_loses_the_least_work(machines: list[MachineFact]) -> None:
    lost = [(machine.state != "suspended", machine.progress_s) for machine in victims_of(machines)]

    assert lost == sorted(lost)


@given(FLEETS, st.integers(0, 12))
def test_no_working_machine_is_given_up_while_a_sleeping_one_is_kept(
    machines: list[MachineFact], wanted: int
) -> None:
    victims = victims_of(machines)
    decision = Decision(
        datetime(2026, 11, 20, tzinfo=UTC), Verdict.NORMAL, Rung.NO_NEW, (), 0.0, wanted, wanted, (),
        tuple(machine.machine for machine in victims), Reason(ReasonCode.CAP),
    )  # fmt: skip
    rows = [_row(machine) for machine in victims]
    plan = plan_machines(decision, rows)

    stays = {row.id: plan.wanted.get(row.id) is not Wanted.GONE for row in rows}
    sleeping_stay = any(stays[row.id] for row in rows if row.state is MachineState.SUSPENDED)
    working_go = any(not stays[row.id] for row in rows if row.state is not MachineState.SUSPENDED)
    assert sum(stays.values()) == min(wanted, len(rows))
    assert not (sleeping_stay and working_go)


def _row(machine: MachineFact) -> MachineNow:
    sleeps = machine.state == "suspended"
    state, wanted = (
        (MachineState.SUSPENDED, Wanted.SUSPENDED) if sleeps else (MachineState.RUNNING, Wanted.RUNNING)
    )
    identity = UUID(machine.machine)
    return MachineNow(identity, state, wanted, machine.host, machine.vcpus, identity.int)
