"""Pages, cursors, revisions: the small problems that every list and every change share."""

import json
from uuid import UUID, uuid4

import pytest
from fastapi import Response

from libs.common.errors import Problem, answer, invalid, not_found, unauthorised, unavailable
from libs.common.paging import make_cursor, page_of, read_cursor, require_match, set_etag


def test_constructors_name_status_field_and_remedy() -> None:
    problem = invalid("size", "It is too large.", "Make it smaller.")
    assert (problem.status, problem.field, problem.remedy, problem.slug) == (
        422,
        "size",
        "Make it smaller.",
        "invalid",
    )
    assert not_found("machine").detail == "No such machine."
    assert unauthorised("No.").headers == {"WWW-Authenticate": "Bearer"}
    assert unavailable("Wait.", retry_after_s=5).headers == {"Retry-After": "5"}


def test_an_answer_leaves_out_what_is_not_known() -> None:
    body = json.loads(bytes(answer(Problem(409, "Busy.", slug="busy"), workload="w").body))
    assert body == {
        "type": "urn:tides:problem:busy",
        "title": "In conflict with the present state",
        "status": 409,
        "detail": "Busy.",
        "workload": "w",
    }


def test_a_cursor_comes_back_as_it_was() -> None:
    some = uuid4()
    assert read_cursor(make_cursor("näme", 7, str(some)), str, int, UUID) == ("näme", 7, some)


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "!", "AAAA", "bnVsbA", make_cursor(), make_cursor("a", "b"), make_cursor(7), make_cursor("a\x00"),
     "W" * 500, "é"],
)  # fmt: skip
def test_any_other_cursor_is_a_named_problem(cursor: str) -> None:
    with pytest.raises(Problem) as caught:
        read_cursor(cursor, str)
    assert (caught.value.status, caught.value.field) == (422, "cursor")


@pytest.mark.parametrize("number", [True, 2**63, -(2**63), 1.5])
def test_numbers_in_cursors_are_whole_and_fit_the_database(number: float) -> None:
    with pytest.raises(Problem):
        read_cursor(make_cursor(number), int)  # type: ignore[arg-type]


def test_a_page_knows_whether_there_is_more() -> None:
    page = page_of([1, 2, 3], 2, str, lambda row: (row,))
    assert page.items == ["1", "2"]
    assert page.next_cursor is not None
    assert read_cursor(page.next_cursor, int) == (2,)
    assert page_of([1, 2], 2, str, lambda row: (row,)).next_cursor is None
    assert page_of([], 2, str, lambda row: (row,)).items == []


@pytest.mark.parametrize(("given", "status"), [(None, 428), ('"6"', 412), ("x", 412), ('"6", "8"', 412)])
def test_a_change_from_another_revision_is_refused(given: str | None, status: int) -> None:
    with pytest.raises(Problem) as caught:
        require_match(given, 7)
    assert caught.value.status == status


@pytest.mark.parametrize("given", ['"7"', 'W/"7"', '"6", "7"', "*"])
def test_a_change_from_the_present_revision_passes(given: str) -> None:
    response = Response()
    set_etag(response, 7)
    assert response.headers["etag"] == '"7"'
    require_match(given, 7)
