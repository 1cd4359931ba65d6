"""What a decision means for machines: never too many, in the decision's order, waking before making."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from libs.harvest.types import Decision, HostBudget, Reason, ReasonCode, Rung, Verdict
from services.workload.domain.plan import MachineNow, Plan, hold_at_floor, is_too_late, plan_machines
from services.workload.domain.states import COUNTED, MachineState, Wanted

NOW = datetime(2026, 11, 20, tzinfo=UTC)
_S, _W = MachineState, Wanted


def a_decision(wanted: int, running: int, rung: Rung = Rung.LEND, **more: tuple[str, ...]) -> Decision:
    victims, placements = more.get("victims", ()), more.get("placements", ())
    reason = Reason(ReasonCode.LENDING)
    return Decision(NOW, Verdict.IDLE, rung, (), 0.0, wanted, running, placements, victims, reason)


def a_machine(
    number: int, state: MachineState = _S.RUNNING, wanted: Wanted = _W.RUNNING, **more: bool
) -> MachineNow:
    return MachineNow(UUID(int=number), state, wanted, "h1", 4, number, by_hand=more.get("by_hand", False))


def after(machines: Sequence[MachineNow], plan: Plan) -> dict[int, Wanted]:
    return {machine.ordinal: plan.wanted.get(machine.id, machine.wanted) for machine in machines}


MACHINES = st.lists(
    st.tuples(st.sampled_from(list(_S)), st.sampled_from(list(_W)), st.booleans()), max_size=8
).map(
    lambda rows: [
        a_machine(number, state, _W.GONE if by_hand else wanted, by_hand=by_hand)
        for number, (state, wanted, by_hand) in enumerate(rows, start=1)
    ]
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Decision, list[MachineNow]]:
    """Machines and a decision about them as the engine makes it: victims are the kept ones in any order."""
    machines = draw(MACHINES)
    kept = [str(m.id) for m in machines if m.state in COUNTED and m.wanted is not _W.GONE]
    wanted = draw(st.integers(0, 10))
    rung = draw(st.sampled_from(list(Rung)))
    most = max(0, wanted - len(kept)) if rung is Rung.LEND else 0
    hosts = draw(st.lists(st.sampled_from(["h1", "h2", "h3"]), max_size=most))
    more = {"victims": tuple(draw(st.permutations(kept))), "placements": tuple(hosts)}
    return a_decision(wanted, draw(st.integers(len(hosts), wanted)), rung, **more), machines


@given(situations())
def test_never_more_than_wanted_are_kept_and_never_more_than_running_run(
    situation: tuple[Decision, list[MachineNow]],
) -> None:
    decision, machines = situation
    plan = plan_machines(decision, machines)

    counted = {m.ordinal for m in machines if m.state in COUNTED}
    wanted = Counter(want for number, want in after(machines, plan).items() if number in counted)
    kept = wanted[_W.RUNNING] + wanted[_W.SUSPENDED]
    back = sum(m.wanted is _W.GONE and m.id in plan.wanted for m in machines)
    assert kept + len(plan.create_on) <= decision.wanted
    assert wanted[_W.RUNNING] - back + len(plan.create_on) <= decision.running
    if decision.rung >= Rung.DRAIN:
        assert kept == 0
    if decision.rung is not Rung.LEND:
        assert back == 0


@given(situations())
def test_what_a_person_gave_up_and_what_is_past_return_stays_given_up(
    situation: tuple[Decision, list[MachineNow]],
) -> None:
    decision, machines = situation
    plan = plan_machines(decision, machines)

    past = {_S.REQUESTED, _S.CREATING, _S.DESTROYING, _S.DESTROYED, _S.LOST}
    for machine in machines:
        if machine.by_hand or (machine.wanted is _W.GONE and machine.state in past):
            assert machine.id not in plan.wanted


@given(situations())
def test_only_what_the_decision_places_is_made_and_only_on_the_lending_rung(
    situation: tuple[Decision, list[MachineNow]],
) -> None:
    decision, machines = situation
    plan = plan_machines(decision, machines)

    assert plan.create_on == decision.placements[: len(plan.create_on)]
    if decision.rung is not Rung.LEND:
        assert plan.create_on == ()


@given(situations())
def test_what_still_waits_to_be_cloned_goes_where_nothing_new_may_be_made(
    situation: tuple[Decision, list[MachineNow]],
) -> None:
    decision, machines = situation
    assume(decision.rung >= Rung.NO_NEW)
    final = after(machines, plan_machines(decision, machines))

    assert all(final[m.ordinal] is _W.GONE for m in machines if m.state is _S.REQUESTED and not m.by_hand)


@pytest.mark.parametrize(("rung", "goes"), [(Rung.LEND, False), (Rung.FLOOR, False), (Rung.NO_NEW, True)])
def test_a_clone_that_the_cloud_has_never_shown_goes_too_and_one_that_it_has_stays(
    rung: Rung, goes: bool
) -> None:
    unseen = replace(a_machine(1, _S.CREATING), is_made=False)
    seen = a_machine(2, _S.CREATING)
    decision = a_decision(2, 2, rung, victims=(str(unseen.id), str(seen.id)))

    assert plan_machines(decision, [unseen, seen]).wanted == ({unseen.id: _W.GONE} if goes else {})


def test_what_cannot_be_decided_is_held_at_the_floor_and_never_above_what_was_lent() -> None:
    held = hold_at_floor(
        NOW, {"h1": 9000.0, "h2": 300.0, "h3": 5000.0}, {"h1": 800.0, "h2": 800.0, "h4": 800.0}
    )

    assert {b.host: b.budget_mhz for b in held.budgets} == {"h1": 800.0, "h2": 300.0, "h3": 0.0, "h4": 800.0}
    assert (held.rung, held.cap_mhz, held.placements, held.victims) == (Rung.NO_NEW, 1900.0, (), ())


@given(situations())
def test_nothing_is_put_to_sleep_to_wake_another_on_an_equal_host(
    situation: tuple[Decision, list[MachineNow]],
) -> None:
    decision, machines = situation
    plan = plan_machines(decision, machines)

    woken = [m for m in machines if m.wanted is _W.SUSPENDED and plan.wanted.get(m.id) is _W.RUNNING]
    slept = [m for m in machines if m.wanted is _W.RUNNING and plan.wanted.get(m.id) is _W.SUSPENDED]
    assert not (woken and slept)


@given(situations())
def test_a_plan_that_was_followed_is_not_made_again(situation: tuple[Decision, list[MachineNow]]) -> None:
    decision, machines = situation
    plan = plan_machines(decision, machines)
    came_back = [m for m in machines if m.wanted is _W.GONE and m.id in plan.wanted]
    assume(not came_back)  # the next decision counts those
    changed = [
        MachineNow(
            m.id, m.state, plan.wanted.get(m.id, m.wanted), m.host, m.vcpus, m.ordinal, by_hand=m.by_hand
        )
        for m in machines
    ]

    assert plan_machines(decision, changed).wanted == {}


@given(situations())
def test_victims_go_first_in_their_order(situation: tuple[Decision, list[MachineNow]]) -> None:
    decision, machines = situation
    final = after(machines, plan_machines(decision, machines))

    by_id = {str(m.id): m for m in machines}
    victims = [by_id[name] for name in decision.victims if not is_too_late(decision.rung, by_id[name])]
    stay = [final[machine.ordinal] is not _W.GONE for machine in victims]
    assert stay == sorted(stay)


def test_a_machine_that_drains_already_does_not_push_out_one_that_is_kept() -> None:
    machines = [a_machine(1, _S.DRAINING, _W.GONE), a_machine(2)]
    plan = plan_machines(a_decision(1, 1, victims=(str(machines[1].id),)), machines)

    assert plan == Plan({}, ())


def test_a_machine_that_drains_comes_back_before_another_is_made() -> None:
    machines = [a_machine(1, _S.DRAINING, _W.GONE), a_machine(2)]
    decision = a_decision(2, 2, victims=(str(machines[1].id),), placements=("h2",))

    assert plan_machines(decision, machines) == Plan({machines[0].id: _W.RUNNING}, ())


def test_of_those_that_drain_the_one_that_would_be_given_up_last_comes_back() -> None:
    machines = [a_machine(1, _S.DRAINING, _W.GONE), a_machine(2, _S.DRAINING, _W.GONE)]
    decision = a_decision(1, 1, victims=tuple(str(machine.id) for machine in machines))

    assert plan_machines(decision, machines) == Plan({machines[1].id: _W.RUNNING}, ())


def test_what_the_decision_suspends_sleeps_whatever_else_is_there() -> None:
    """Also one that it calls back from its drain, and where a person gave up one that the engine still counts."""
    crowded, other = a_machine(1, _S.DRAINING, _W.GONE), a_machine(2)
    decision = replace(a_decision(2, 1), suspend=(str(crowded.id),))
    assert plan_machines(decision, [crowded, other]).wanted == {crowded.id: _W.SUSPENDED}

    given_up, crowded = a_machine(3, wanted=_W.GONE, by_hand=True), a_machine(1)
    decision = replace(a_decision(3, 2), suspend=(str(crowded.id),))
    assert plan_machines(decision, [crowded, other, given_up]).wanted == {crowded.id: _W.SUSPENDED}


def test_the_drain_rung_marks_every_machine() -> None:
    machines = [a_machine(1), a_machine(2, _S.SUSPENDED, _W.SUSPENDED)]
    plan = plan_machines(
        a_decision(2, 1, Rung.DRAIN, victims=(str(machines[0].id), str(machines[1].id))), machines
    )

    assert plan.wanted == {machine.id: _W.GONE for machine in machines}


def test_a_machine_on_a_host_that_can_carry_none_sleeps_and_the_one_that_can_run_wakes() -> None:
    stuck, able = a_machine(1), MachineNow(UUID(int=2), _S.SUSPENDED, _W.SUSPENDED, "h2", 4, 2)
    decision = a_decision(2, 1, victims=(str(stuck.id), str(able.id)))
    decision = replace(decision, budgets=(HostBudget("h1", 0.0, 0.0, 9.0), HostBudget("h2", 9.0, 0.0, 9.0)))

    assert plan_machines(decision, [stuck, able]).wanted == {stuck.id: _W.SUSPENDED, able.id: _W.RUNNING}


def test_a_new_machine_does_not_wake_one_whose_host_is_full() -> None:
    machines = [a_machine(1), a_machine(2, _S.SUSPENDED, _W.SUSPENDED)]
    decision = a_decision(3, 2, victims=(str(machines[0].id), str(machines[1].id)), placements=("h3",))

    assert plan_machines(decision, machines) == Plan({}, ("h3",))


def test_a_machine_given_up_by_hand_is_replaced() -> None:
    machines = [a_machine(1, _S.DRAINING, _W.GONE, by_hand=True)]

    assert plan_machines(a_decision(1, 1, placements=("h2",)), machines) == Plan({}, ("h2",))


def test_a_sleeping_machine_wakes_before_another_is_made() -> None:
    machines = [a_machine(1, _S.SUSPENDED, _W.SUSPENDED)]

    assert plan_machines(a_decision(1, 1, victims=(str(machines[0].id),)), machines) == Plan(
        {machines[0].id: _W.RUNNING}, ()
    )
