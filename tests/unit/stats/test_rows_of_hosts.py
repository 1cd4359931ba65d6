"""What is kept of a sample's hosts: each by itself, however many of them are impossible."""

import math
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.usage import LATER_COLUMNS, Sample
from services.stats.domain.samples import HOST_COLUMNS, IMPOSSIBLE, MEASURES, HostRow, read_hosts
from tests.service.stats_house import NOW, sample

FIGURES = st.sampled_from((0.0, 7.0, 10.5, math.nan, 1e12, 10.6, 1e13, -1.0, math.inf, -math.inf, None))


@st.composite
def any_sample(draw: st.DrawFn) -> Sample:
    """Columns of all that a float may be, and what may be missing."""
    hosts = draw(st.integers(0, 4))
    odd = draw(st.sets(st.sampled_from(MEASURES), max_size=2))
    any_column = st.lists(FIGURES, min_size=hosts, max_size=hosts)
    columns = {name: draw(any_column) if name in odd else [7.0] * hosts for name in MEASURES}
    columns |= {name: [] for name in LATER_COLUMNS if draw(st.booleans())}
    return _with(sample(NOW, hosts=hosts), **{name: tuple(column) for name, column in columns.items()})


@given(any_sample())
def test_a_hosts_row_is_the_same_beside_a_host_of_which_everything_is_impossible(seen: Sample) -> None:
    beside = _with(
        seen,
        hosts=(*seen.hosts, "impossible"),
        states=(*seen.states, sample(NOW, hosts=1).states[0]),
        **{
            name: (*column, math.nan)
            for name in MEASURES
            if (column := getattr(seen, name)) or not seen.hosts
        },
    )
    *rows, last = read_hosts(beside)
    assert read_hosts(seen) == rows
    kept = _named(last)
    assert (kept["host"], kept["quality"]) == ("impossible", IMPOSSIBLE)
    assert {kept[name] for name in MEASURES} == {None}


@given(any_sample())
def test_no_figure_that_is_kept_is_impossible(seen: Sample) -> None:
    for number, row in enumerate(map(_named, read_hosts(seen))):
        measures = [row[name] for name in MEASURES]
        assert all(0 <= value <= 1e12 for value in measures if value is not None), row
        told = [column[number] if (column := getattr(seen, name)) else None for name in MEASURES]
        lost = any(value is not None and kept is None for value, kept in zip(told, measures, strict=True))
        assert row["quality"] == (IMPOSSIBLE if lost else seen.quality), row
        assert (row["host"], row["state"]) == (seen.hosts[number], seen.states[number])


def _named(row: HostRow) -> dict[str, Any]:
    return dict(zip(HOST_COLUMNS, row, strict=True))


def _with(seen: Sample, **columns: Any) -> Sample:
    return replace(seen, **columns)
