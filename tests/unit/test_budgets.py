"""Budgets count lines and parameters, and their exceptions do not outlive their reason."""

from tools.budgets import Excess, judge, measure


def function(parameters: str, lines: int) -> str:
    return f"def long({parameters}):\n" + "    pass\n" * (lines - 1)


def test_within_budget_is_silent() -> None:
    assert list(measure("a.py", function("a, b, c, d, e, f", lines=50))) == []


def test_a_long_function_is_named() -> None:
    assert list(measure("a.py", function("", lines=51))) == [Excess("a.py::long", "lines", 51, 50)]


def test_self_is_no_parameter_but_keywords_are() -> None:
    fits = function("self, a, b, c, *, d, e, f", lines=2)
    too_many = function("self, a, b, c, *, d, e, f, g", lines=2)

    assert list(measure("a.py", fits)) == []
    assert list(measure("a.py", too_many)) == [Excess("a.py::long", "parameters", 7, 6)]


def test_a_long_file_is_named() -> None:
    assert list(measure("a.py", "pass\n" * 401)) == [Excess("a.py", "lines", 401, 400)]


def test_an_allowed_excess_is_silent_and_a_stale_allowance_is_not() -> None:
    found = [Excess("services/a/migrations/0001.py::upgrade", "lines", 90, 50)]

    assert judge(found, {"services/*/migrations/*": "generated"}) == []
    assert judge(found, {}) == ["services/a/migrations/0001.py::upgrade: 90 lines, at most 50"]
    assert judge([], {"b.py": "once"}) == ["tools/budgets.toml: b.py allows nothing any more"]
