"""Bad input at every door. Who shows what:

    wrong password                                      test_bad_input_cloud::test_a_wrong_password_is_tried_once_and_named
    wrong thumbprint                                    test_bad_input_cloud::test_a_wrong_thumbprint_is_named_with_the_right_one_before_anything_is_sent
    unreachable host                                    test_bad_input_cloud::test_nobody_at_the_address_is_told_at_once
    unreachable host that says nothing                  test_bad_input_cloud::test_a_host_that_says_nothing_is_given_up_in_time
    read-only account                                   test_bad_input_lending::test_a_read_only_account_is_told_and_cannot_lend_and_one_that_is_refused_later_rests
    changed endpoint without the secret                 test_bad_input_cloud::test_a_changed_endpoint_without_the_secret_is_refused_and_never_asked
    a cluster that vanishes                             test_bad_input_lending::test_a_cluster_that_vanishes_goes_to_the_floor_and_the_other_goes_on
    crossed thresholds                                  test_policy::test_a_wrong_document_is_told_by_its_field
    an unapproved template                              test_bad_input_lending::test_an_unapproved_template_deploys_nothing_and_why_says_so
    a template that disappears during a clone           test_bad_input_lending::test_a_template_that_disappears_during_a_clone_fails_it_once_and_growth_rests
    NaN, negative, future, ours > total: on the bus     test_bad_input_samples::test_no_impossible_sample_on_the_bus_raises_a_limit_or_stops_anybody
    negative, ours > total: in a dry run                test_bad_input_samples::test_an_impossible_sample_of_a_dry_run_is_judged_and_lends_nothing
    NaN in a dry run                                    test_bad_input_samples::test_what_is_no_sample_is_refused_by_its_field
    a sample from the future                            test_workload_judging::test_a_sample_from_the_future_is_not_believed_and_blocks_no_true_one
    a 10 MB body                                        test_bad_input::test_ten_megabytes_are_too_large_everywhere_and_nothing_is_written
    a name with ../, SQL or shell characters            test_bad_input::test_a_hostile_text_is_given_back_as_it_is_or_refused_at_its_field
    such a name in the cloud                            test_bad_input_lending::test_a_hostile_name_in_the_cloud_is_only_text_in_the_api_and_on_a_terminal
    such an id in an address                            test_bad_input::test_garbage_in_an_address_is_not_found_or_refused

The doors of this file are those that the OpenAPI documents name: a new route is walked through by itself.
"""  # noqa: E501 - a table

import json
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.service.documented import Place, Route, replaced, texts
from tests.service.every_door import Doors, is_problem, open_doors
from tests.service.lone_service import Answer

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("bad_input")]

TEN_MEGABYTES = 10_000_000
LARGER = {"/dry-runs": 9 * 1024 * 1024}
"""A series of samples may be large: by the ending of the path."""
HOSTILE = (
    "../../etc/passwd",
    "'; drop table x; --",
    "$(reboot)",
    "<script>alert(1)</script>",
    "two\nlines",
    "nul\x00nul",
    "x" * 10_000,
    "\u202egnp.exe",
)
GARBAGE = (
    "x", "-1", "9" * 30, "..%2F..%2Fetc%2Fpasswd", "%27%3B%20drop%20table%20x%3B%20--", "%24%28reboot%29",
    "%3Cscript%3E", "two%0Alines", "nul%00nul", "%E2%80%AEgnp", "%FF", "x" * 5000,
    "018f0000-0000-7000-8000-000000000000",
)  # fmt: skip
SECRET = ("password", "authenticator")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors(postgres_url: str) -> AsyncIterator[Doors]:
    """One house for all walks; none of them leaves anything behind that another would stumble over."""
    async with open_doors(postgres_url) as opened:
        yield opened


@dataclass
class Watch:
    """What Python is asked to open or to run while `on`."""

    on: bool = False

    def __post_init__(self) -> None:
        self.seen: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event.startswith(("open", "os.", "subprocess.", "shutil.")):
            self.seen.append(f"{event} {arguments!r}")


async def test_every_entry_of_the_table_is_a_test() -> None:
    entries = re.findall(r"^    (\S.*?)  +(\w+)::(\w+)$", str(__doc__), flags=re.MULTILINE)
    assert len(entries) == 18
    for what, module, name in entries:
        text = (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        assert f"def {name}(" in text, what


async def test_ten_megabytes_are_too_large_everywhere_and_nothing_is_written(doors: Doors) -> None:
    walked = [route for route in doors.routes if route.schema is not None]
    assert len(walked) > 20
    before = await doors.rows()
    for route in walked:
        size = next((size for ending, size in LARGER.items() if route.path.endswith(ending)), TEN_MEGABYTES)
        body = json.dumps(doors.body_of(route)).encode().ljust(size)

        answer = await doors.send(route, body)

        assert answer.status == 413, (route.name, answer.body)
        assert is_problem(answer)
    assert await doors.rows() == before


async def test_a_hostile_text_is_given_back_as_it_is_or_refused_at_its_field(doors: Doors) -> None:
    watch = Watch(on=True)
    walked = [route for route in doors.routes if route.creates]
    assert len(walked) > 8
    for route in walked:
        body = doors.body_of(route)
        taken = await doors.send(route, body)
        assert taken.status in (201, 409), (route.name, body, taken.body)
        for place, _ in texts(body):
            for hostile in HOSTILE:
                sent = replaced(doors.body_of(route), place, hostile)
                await _check(doors, route, (place, hostile), await doors.send(route, sent))
    watch.on = False
    assert watch.seen, "nothing was watched"
    for hostile in HOSTILE:
        assert not [one for one in watch.seen if repr(hostile)[1:-1][:200] in one]


async def _check(doors: Doors, route: Route, given: tuple[Place, str], answer: Answer) -> None:
    (place, hostile), where = given, (route.name, given[0], given[1][:30], answer.status, answer.body)
    field = ".".join(map(str, place))
    if answer.status == 201:
        shown = [answer.body]
        beside = next(
            (one for one in doors.routes if one.name == f"GET {route.path}/{{{_noun(route)}_id}}"), None
        )
        if beside is not None:
            shown.append((await doors.send(beside, None, ids={f"{_noun(route)}_id": answer.body["id"]})).body)
        for body in shown:
            assert (hostile in [text for _, text in texts(body)]) is (place[-1] not in SECRET), where
    elif route.path == "/v1/sessions" and answer.status == 401:
        assert is_problem(answer), where
    else:
        assert answer.status == 422, where
        assert is_problem(answer), where
        assert answer.body["field"] in (field, field.rpartition(".")[0]), where
        assert answer.body.get("remedy"), where
        assert len(hostile) < 20 or hostile not in str(answer.body), where


def _noun(route: Route) -> str:
    return route.path.rpartition("/")[2].removesuffix("s").replace("policie", "policy")


async def test_garbage_in_an_address_is_not_found_or_refused(doors: Doors) -> None:
    walked = [route for route in doors.routes if route.parameters]
    assert len(walked) > 30
    for route in walked:
        for parameter in route.parameters:
            for garbage in GARBAGE:
                answer = await doors.send(route, doors.body_of(route), ids={parameter: garbage})

                # A name may be anything: another test may have given this one.
                fine = (200, 404, 422) if parameter == "name" else (404, 422)
                assert answer.status in fine, (route.name, parameter, garbage, answer.body)
                assert answer.status == 200 or is_problem(answer)
