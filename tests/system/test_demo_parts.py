"""Every beat and every handler is needed: without any one of them, something that the demo promises is not true.

What a short demo cannot miss stands in ELSEWHERE, each with the test that does.
"""

import asyncio
import uuid
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

from libs.common.migrate import migrate
from services.cli.run import SERVICES
from tests.system.demo_story import Chapter, Findings, Part, play
from tools.parts import postgres

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]

NEEDED: dict[str, Chapter] = {
    "identity keep": Chapter.LENDING,
    "registry relay": Chapter.LENDING,
    "policy relay": Chapter.LENDING,
    "templates relay": Chapter.LENDING,
    "templates resource.changed.v1": Chapter.LENDING,
    "contribution relay": Chapter.LENDING,
    "monitor collect": Chapter.LENDING,
    "monitor resource.changed.v1": Chapter.LENDING,
    "monitor relay": Chapter.LOOKING,
    "workload act": Chapter.LENDING,
    "workload relay": Chapter.LENDING,
    "workload judge_silence": Chapter.SILENCE,
    "workload usage.sampled.v1": Chapter.LENDING,
    "workload resource.changed.v1": Chapter.LENDING,
    "workload policy.assigned.v1": Chapter.LENDING,
    "workload template.changed.v1": Chapter.LENDING,
    "workload contribution.changed.v1": Chapter.LENDING,
    "stats usage.sampled.v1": Chapter.LENDING,
}
"""Others depend on these, so each is taken away alone; the chapter in which it is missed at the latest."""

FACTS = (
    "machine_requested", "machine_deployed", "machine_suspended", "machine_resumed", "machine_draining",
    "machine_destroyed", "machine_failed", "machine_lost", "limits_applied", "cluster_paused", "cluster_resumed",
    "resource_released",
)  # fmt: skip
HALVES: tuple[dict[str, str], ...] = (
    {
        "registry resource.inventory_changed.v1": "registry shows hosts",
        "registry resource.degraded.v1": "an outage is shown",
        "policy resource.changed.v1": "an operator can assign a policy to what is theirs",
        "contribution action.machine_requested.v1": "a contribution counts machines on their way",
        "contribution action.machine_draining.v1": "a contribution counts machines that drain",
        "stats resource.inventory_changed.v1": "stats knows the cores of hosts",
        "stats days": "stats has a place for tomorrow",
        **{f"stats action.{fact}.v1": f"stats has every action.{fact}.v1" for fact in FACTS[::2]},
    },
    {
        "registry resource.recovered.v1": "the end of an outage is shown",
        "registry action.resource_released.v1": "registry knows what was released",
        "policy resource.inventory_changed.v1": "a policy can be assigned to a cluster",
        "workload keep": "what is past its time is forgotten",
        "templates look": "a template that is gone is noticed",
        "contribution action.machine_deployed.v1": "a contribution counts machines that run",
        "contribution action.machine_destroyed.v1": "a contribution counts machines that are gone",
        "stats resource.changed.v1": "stats knows whose clusters they are",
        "stats roll": "stats has rolled up an hour",
        **{f"stats action.{fact}.v1": f"stats has every action.{fact}.v1" for fact in FACTS[1::2]},
    },
)
LEAVES = HALVES[0] | HALVES[1]
"""Nobody depends on these: half of them at a time is taken away, and exactly their own sentences break."""

ELSEWHERE: dict[str, str] = {
    "* measure": "tests/contract/test_runner.py::test_what_waits_in_the_outbox_is_measured",
    "* housekeeping": "tests/contract/test_inbox.py::test_pruning_forgets_only_what_can_no_longer_come",
    "* revocations": "tests/contract/test_runner.py::test_a_revoked_token_is_refused_by_every_service",
    "* identity.token_revoked.v1": "tests/contract/test_runner.py::test_a_revoked_token_is_refused_by_every_service",
    "identity relay": (
        "tests/service/test_identity_tokens.py::"
        "test_a_revoked_token_is_refused_by_another_service_in_another_process"
    ),
    "stats relay": "tests/contract/test_runner.py::test_what_one_service_commits_another_keeps_once",
    "registry action.resource_abandoned.v1": (
        "tests/service/test_registry_abandoned.py::"
        "test_a_cloud_that_is_silent_for_long_enough_is_given_up_and_its_address_is_free"
    ),
    "contribution action.machine_abandoned.v1": (
        "tests/service/test_contribution.py::test_machines_are_counted_in_whatever_order_their_facts_come"
    ),
    "stats action.machine_abandoned.v1": (
        "tests/service/test_stats.py::test_core_hours_go_to_organisations_by_their_running_vcpus"
    ),
    "templates end_overdue": (
        "tests/service/test_templates_derive.py::test_one_that_is_late_or_ended_has_failed_with_a_remedy"
    ),
    "templates action.derivation_moved.v1": (
        "tests/service/test_templates_derive.py::test_a_version_comes_of_it_once_and_is_a_draft_or_approved"
    ),
    **{
        f"workload {part}": (
            "tests/service/test_workload_derive.py::"
            "test_a_builder_beside_what_is_lent_becomes_a_template_that_goes_when_its_version_is_revoked"
        )
        for part in ("derive", "template.derivation_changed.v1")
    },
    "stats backtest": (
        "tests/service/test_stats_backtests.py::"
        "test_a_clusters_own_history_tells_what_a_policy_would_have_lent"
    ),
    **{
        f"stats action.{fact}.v1": "tests/service/test_stats.py::test_the_summary_counts_acts_once"
        for fact in ("resource_abandoned", "cluster_drain_requested", "cluster_scaled", "sweep_allowed")
    },
    "stats action.limits_failed.v1": "tests/service/test_stats.py::test_the_summary_counts_acts_once",
    "* ask": (
        "tests/service/test_late_joiners.py::"
        "test_a_service_that_lost_its_database_learns_what_is_there_and_what_is_gone"
    ),
    "* states.asked.v1": (
        "tests/service/test_late_joiners.py::"
        "test_a_service_that_lost_its_database_learns_what_is_there_and_what_is_gone"
    ),
    "contribution foretell": (
        "tests/service/test_subscribers.py::test_a_project_hears_of_its_own_hosts_and_of_nothing_else"
    ),
    "contribution visit": (
        "tests/service/test_credit.py::test_credit_is_counted_once_by_machine_and_day_and_strangers_apart"
    ),
    "contribution action.machine_resumed.v1": (
        "tests/service/test_guests.py::"
        "test_a_drain_that_is_called_off_is_undone_by_the_agent_and_can_come_again"
    ),
    "workload contribution.machine_drained.v1": (
        "tests/service/test_workload_guests.py::"
        "test_a_drain_says_how_long_it_may_take_and_ends_when_the_guest_is_done"
    ),
    "workload renew": (
        "tests/service/test_workload_renewal.py::"
        "test_a_changed_key_reaches_every_machine_one_after_the_other_and_slots_are_used_again"
    ),
    "workload contribution.guest_health_changed.v1": (
        "tests/service/test_workload_renewal.py::"
        "test_a_guest_that_does_not_work_is_replaced_three_times_and_then_the_cluster_rests"
    ),
    "contribution action.guests_throttled.v1": (
        "tests/service/test_guest_orders.py::"
        "test_workloads_cap_holds_without_end_and_a_person_can_only_ask_for_less"
    ),
    "contribution watch": (
        "tests/service/test_guest_health.py::"
        "test_silence_is_noticed_by_the_watch_once_and_not_one_lost_heartbeat"
    ),
    "* reseal": "tests/service/test_rotation.py::test_every_secret_follows_the_newest_key",
    "workload probe": (
        "tests/service/test_workload_probe.py::test_one_machine_is_made_and_becomes_the_first_one_that_is_lent"
    ),
    **{
        part: (
            "tests/service/test_stand_in.py::"
            "test_what_is_lent_to_a_cloud_alone_goes_to_its_stand_in_within_its_limits_and_comes_back"
        )
        for part in ("workload stand_in", "contribution action.resource_departed.v1")
    },
    "contribution action.resource_returned.v1": (
        "tests/service/test_priorities.py::"
        "test_what_is_lent_to_a_cloud_that_is_away_is_told_to_machines_of_its_stand_in"
    ),
    "registry credentials": (
        "tests/service/test_alternate_credential.py::"
        "test_a_locked_account_costs_no_machine_and_each_is_tried_once"
    ),
    **{
        f"registry {said}.login_refused.v1": (
            "tests/service/test_registry_alternates.py::"
            "test_a_refused_credential_gives_way_and_comes_back_whatever_comes_twice_or_late"
        )
        for said in ("resource", "action")
    },
    "registry probes": (
        "tests/service/test_registry_probes.py::"
        "test_two_replicas_end_a_probe_once_and_a_machine_that_is_gone_ends_it_at_once"
    ),
    **{
        f"registry {fact}.v1": (
            "tests/service/test_registry_probes.py::"
            "test_a_resource_is_lent_when_its_machine_has_reached_a_project_whatever_comes_twice_or_late"
        )
        for fact in ("action.probe_moved", "contribution.probe_reported")
    },
    "registry action.sweep_stopped.v1": (
        "tests/service/test_registry.py::test_the_sweepers_alarm_stays_until_somebody_has_seen_it"
    ),
    "monitor sweep": "tests/service/test_monitor_replicas.py::test_a_replica_that_ended_long_ago_is_forgotten",
    "workload resource.inventory_changed.v1": (
        "tests/service/test_workload_lending.py::test_a_cluster_is_shown_from_its_inventory_on"
    ),
}
"""A healthy short run looks the same without these: what they do shows after days, failures or restarts."""


def part(name: str) -> Part:
    return Part(*name.split(" ", 1))


class Server:
    """Databases that are migrated already: every play needs one of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._base = f"demo_{uuid.uuid4().hex[:12]}"
        base = asyncio.run(postgres.create_database(url, self._base))
        for name in SERVICES:
            asyncio.run(migrate(base, name, f"services.{name}.migrations"))
        self.played = cache(self._play)

    def _play(self, without: frozenset[str], chapter: Chapter) -> Findings:
        name = f"demo_{uuid.uuid4().hex[:12]}"
        url = asyncio.run(postgres.create_database(self._url, name, self._base))
        try:
            return play(url, {part(one) for one in without}, chapter)
        finally:
            asyncio.run(postgres.drop_database(self._url, name))

    def close(self) -> None:
        asyncio.run(postgres.drop_database(self._url, self._base))


@pytest.fixture(scope="module")
def server(postgres_url: str) -> Iterator[Server]:
    """The session's server, with a database to copy."""
    opened = Server(postgres_url)
    yield opened
    opened.close()


def test_with_every_part_every_sentence_holds(server: Server) -> None:
    findings = server.played(frozenset(), Chapter.END)

    assert findings.broken == set()
    assert set(LEAVES.values()) <= findings.holds.keys()


@pytest.mark.parametrize("name", NEEDED)
def test_without_a_part_that_others_need_the_demo_fails(name: str, server: Server) -> None:
    assert server.played(frozenset({name}), NEEDED[name]).broken


@pytest.mark.parametrize("name", LEAVES)
def test_without_a_leaf_its_own_sentence_is_not_true_and_no_other_breaks(name: str, server: Server) -> None:
    half = next(half for half in HALVES if name in half)

    findings = server.played(frozenset(half), Chapter.END)

    assert LEAVES[name] in findings.broken
    assert findings.broken <= set(half.values())


def test_every_beat_and_handler_is_missed_somewhere(server: Server) -> None:
    parts = {str(one) for one in server.played(frozenset(), Chapter.END).parts}
    known = NEEDED.keys() | LEAVES.keys()
    elsewhere = {name for name in parts - known if any(fnmatch(name, pattern) for pattern in ELSEWHERE)}

    assert parts - elsewhere == known
    assert [pattern for pattern in ELSEWHERE if not any(fnmatch(name, pattern) for name in elsewhere)] == []


@pytest.mark.parametrize("place", sorted(set(ELSEWHERE.values())))
def test_the_tests_that_miss_the_others_are_there(place: str) -> None:
    file, _, name = place.partition("::")

    assert f"def {name}(" in (ROOT / file).read_text()
