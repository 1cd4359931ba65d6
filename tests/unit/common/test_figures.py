"""Gauges of shared rows: shown with who read them, and not shown once nobody could read them again."""

from prometheus_client import CollectorRegistry, generate_latest

from libs.common.figures import SHOWN_FOR_S, Board, Gauge

SWEEPS = Gauge("tides_sweep_stopped", "Whether it waits.", ("resource",))
DEAD = Gauge("tides_dead_letters", "Given up.")


class Shelf:
    """A board on a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registry = CollectorRegistry()
        self.board = Board(self.registry, lambda: self.now)

    def lines(self) -> list[str]:
        text = generate_latest(self.registry).decode()
        return [line for line in text.splitlines() if not line.startswith("#")]


def test_each_service_shows_what_it_read_and_what_is_gone_is_gone() -> None:
    shelf = Shelf()
    shelf.board.put("workload", SWEEPS, {("a",): 1, ("b",): 0})
    shelf.board.put("monitor", SWEEPS, {("a",): 0})
    shelf.board.put("", DEAD, {(): 3})
    assert shelf.lines() == [
        "tides_dead_letters 3.0",
        'tides_sweep_stopped{resource="a",service="monitor"} 0.0',
        'tides_sweep_stopped{resource="a",service="workload"} 1.0',
        'tides_sweep_stopped{resource="b",service="workload"} 0.0',
    ]
    shelf.board.put("workload", SWEEPS, {("b",): 0})
    assert 'tides_sweep_stopped{resource="a",service="workload"} 1.0' not in shelf.lines()


def test_a_figure_that_cannot_be_read_again_is_left_out_and_keeps_its_help() -> None:
    shelf = Shelf()
    shelf.board.put("", DEAD, {(): 3})
    shelf.now += SHOWN_FOR_S - 1
    assert shelf.lines() == ["tides_dead_letters 3.0"]
    shelf.now += 1
    assert shelf.lines() == []
    text = generate_latest(shelf.registry).decode()
    assert "# TYPE tides_dead_letters gauge" in text
    assert "aggregate with max, never sum" in text
