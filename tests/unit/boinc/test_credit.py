"""Credit arithmetic against figures that a real client and a real server gave; the catalogue."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.boinc import credit
from libs.boinc.catalogue import LARGEST_CATALOGUE, read_catalogue

CATALOGUE = b"""<?xml version="1.0" encoding="UTF-8" ?>
<projects>
  <project><name>Plain@home</name><id>51</id><url>https://Plain.example/plain</url><web_url/>
    <general_area>Biology and Medicine</general_area><specific_area>Biomedicine</specific_area>
    <description><![CDATA[Finds <b>things</b> & more]]></description><home>A University</home>
    <platforms><name>windows_x86_64</name><name>x86_64-pc-linux-gnu[avx]</name></platforms>
    <keywords>9 13 x 64</keywords></project>
  <project><name>Boxed</name><url>https://boxed.example/</url><platforms><name>x86_64-pc-linux-gnu[vbox64]</name>
    <name>x86_64-pc-linux-gnu[cuda120]</name></platforms></project>
  <project><name>Nowhere</name><url>file:///etc/passwd</url></project>
  <account_manager><name>BAM!</name><url>https://bam.example/</url></account_manager>
</projects>"""


def test_what_a_real_client_counted() -> None:
    assert credit.claimed_credit(18.234142, 1e9) == pytest.approx(0.042209, abs=1e-6)
    assert credit.claimed_credit(31.287, 4.3e9) == pytest.approx(0.31143, abs=1e-4)
    assert credit.credit_of_flops(8.64e13) == pytest.approx(200)
    assert credit.flops_of_credit(1) == pytest.approx(4.32e11)
    assert credit.gflops_of_average(400) == 2.0


@given(st.floats(0, 1e12))
def test_credit_and_operations_are_two_words_for_one_thing(value: float) -> None:
    assert credit.credit_of_flops(credit.flops_of_credit(value)) == pytest.approx(value)


def test_an_average_halves_in_a_week_and_never_grows() -> None:
    assert credit.average_now(100.0, 0.0, 7 * 86_400.0) == pytest.approx(50.0)
    assert credit.average_now(100.0, 500.0, 0.0) == 100.0


@pytest.mark.parametrize(
    ("said", "possible"), [(50.0, 50.0), (1e12, 200.0), (-5.0, 0.0), (float("nan"), 0.0), (float("inf"), 0.0)]
)
def test_a_machine_cannot_have_spent_more_than_it_has(said: float, possible: float) -> None:
    assert credit.possible_s(said, vcpus=2, elapsed_s=100.0) == possible


def test_the_catalogue_says_who_runs_on_plain_linux() -> None:
    plain, boxed = read_catalogue(CATALOGUE)

    assert (plain.url, plain.description) == ("https://plain.example/plain/", "Finds <b>things</b> & more")
    assert (plain.web_url, plain.keywords) == (plain.url, frozenset({9, 13, 64}))
    assert (plain.runs_here, boxed.runs_here) == (True, False)


@pytest.mark.parametrize("body", [b"", b"<html>", b" " * (LARGEST_CATALOGUE + 1)])
def test_what_is_no_catalogue_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="catalogue"):
        read_catalogue(body)
