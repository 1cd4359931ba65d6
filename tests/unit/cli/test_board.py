"""The board fits a terminal of 100 columns and says what bound a decision."""

from typing import Any

from services.cli.board import BAR, Board, bar, draw, tell_event, tell_line

REASON = "owner CPU 84.6 % is above reclaim 80 % on prod-b-esx01.example.org; " + "a long story " * 12


def cluster(**changes: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "id": "c1",
        "name": "prod-a",
        "mode": "lend",
        "verdict": "busy",
        "rung": "floor",
        "reason": REASON,
        "sampled_at": "2026-11-20T12:00:00+00:00",
        "capacity_mhz": 100_000.0,
        "owner_mhz": 50_000.0,
        "ours_mhz": 20_000.0,
        "budget_mhz": 35_000.0,
        "wanted": 3,
        "machines": {"running": 2, "deploying": 1},
        "sweep_stopped": None,
    }
    return {**known, **changes}


EVENT = {
    "id": "e",
    "key": "action.limits_applied.v1",
    "at": "2026-11-20T12:00:01+00:00",
    "cluster_id": "c1",
    "body": {"changes": 4, "reason": REASON},
}


def test_nothing_is_wider_than_the_terminal() -> None:
    board = Board([cluster(name="a-cluster-of-a-very-long-name")], {"c1": 12_345.6}, [EVENT])

    lines = draw(board, 100).plain.splitlines()

    assert max(map(len, lines)) <= 100
    assert "busy/floor · owner CPU 84.6 % is above reclaim" in lines[2]


def test_a_cluster_shows_every_figure() -> None:
    told = draw(Board([cluster()], {"c1": 12.3}), 100).plain

    for figure in (
        "owner  50 %",
        "ours  20 %",
        "35.0 GHz",
        "12.3 core-h",
        "1 deploying, 2 running; 3 wanted",
    ):
        assert figure in told


def test_a_bar_has_one_width_whatever_the_load() -> None:
    for owner, ours in ((0, 0), (50, 20), (99, 30), (130, 10)):
        assert len(bar(owner, ours, 100).plain) == BAR
    assert bar(0, 0, 0).plain == "·" * BAR


def test_observing_and_a_waiting_sweeper_are_said() -> None:
    assert "only observed: owner" in draw(Board([cluster(mode="observe")]), 100).plain
    assert "the sweeper waits for a person: 5 strangers" in (
        draw(Board([cluster(sweep_stopped="5 strangers")]), 200).plain
    )


def test_a_cluster_nobody_has_judged_yet_is_said_so() -> None:
    fresh = cluster(reason="", verdict="unknown", rung=None, sampled_at=None, capacity_mhz=0.0)

    assert "unknown · not judged yet" in draw(Board([fresh]), 100).plain
    assert "owner -" in tell_line(fresh)


def test_names_cannot_command_the_terminal() -> None:
    board = Board(
        [cluster(name="\x1b[31mred", reason="\x07")], {}, [{**EVENT, "body": {"reason": "\x1b]0;x"}}]
    )

    assert "\x1b" not in draw(board, 100).plain
    assert "\x1b" not in tell_event(board.events[0], board)


def test_what_a_person_did_is_told_with_who_and_what() -> None:
    def told(what: str, **body: Any) -> str:
        event = {"key": f"action.{what}.v1", "at": "2026-11-20T12:00:00+00:00", "cluster_id": None}
        return tell_event({**event, "body": {"actor": "Ada", "reason": "licence", **body}}, Board()).split(
            maxsplit=1
        )[1]

    scaled = told("cluster_scaled", most_before=None, most_machines=3)
    assert scaled == "cluster scaled to at most 3 (it was no bound) by Ada: licence"
    assert told("cluster_drain_requested") == "cluster drain requested by Ada: licence"
    assert told("sweep_allowed", machines=["a", "b"]) == "sweep allowed (2 machines) by Ada: licence"
