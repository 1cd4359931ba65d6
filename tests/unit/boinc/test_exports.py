"""What strangers publish and Tides reads by itself: the catalogue of projects and a project's statistics files, as
they really come, cut and mixed up in any way. Reading ends in records or in the one error that is promised."""

import gzip
import math
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.boinc.account import canonical_url
from libs.boinc.catalogue import ListedProject, read_catalogue
from libs.boinc.lenient import Node
from libs.boinc.web import ProjectUnavailable, StatsKind, host_of
from libs.boinc.web.stats import records_in

CPID = "af4a2ffa1bf32ceeec4daac312c228eb"
CATALOGUE = """<?xml version="1.0" encoding="UTF-8" ?>
<projects>
    <project>
        <name>SIDock@home</name><id>51</id>
        <url>https://www.sidock.si/sidock/</url><web_url>https://www.sidock.si/</web_url>
        <general_area>Biology and Medicine</general_area><specific_area>Biomedicine</specific_area>
        <description><![CDATA[Drug design & <i>more</i>]]></description><home>Several universities</home>
        <platforms><name>windows_x86_64</name><name>x86_64-pc-linux-gnu[vbox64]</name>
        <name>x86_64-pc-linux-gnu</name></platforms>
        <image>https://boinc.example/x.jpg</image><summary>Drugs</summary><keywords>9 13 64 20 44</keywords>
    </project>
    <account_manager><name>BAM!</name><url>https://bam.example/</url><description/><image/></account_manager>
</projects>
"""
HOST = f"""<host>
    <id>%(id)d</id>
    <userid>3</userid>
    <total_credit>1.872126</total_credit>
    <expavg_credit>0.500000</expavg_credit>
    <expavg_time>1795170695.5</expavg_time>
    <p_vendor>GenuineIntel
</p_vendor>
    <p_model>Xeon &amp; more</p_model>
    <create_time>1795170000</create_time>
    <ncpus>2</ncpus>
    <p_fpops>4300000000</p_fpops>
    <host_cpid>{CPID}</host_cpid>
</host>
"""
HOSTS = "<hosts>\n" + "".join(HOST % {"id": number} for number in range(1, 9)) + "</hosts>\n"
DELETED = "<hosts>\n" + "".join(
    f"<host>\n    <id>{number}</id>\n    <host_cpid>{CPID}</host_cpid>\n</host>\n" for number in (6, 2**40)
) + "</hosts>\n"  # fmt: skip
LEAVINGS = DELETED.replace("host", "user").replace("user_cpid", "cpid")
PIECES = [
    "<",
    ">",
    "&",
    "</",
    "\x00",
    "nan",
    "-",
    "9" * 30,
    "]]>",
    "<![CDATA[",
    "<host>",
    "</host>",
    "<id>",
    "</projects>",
]


def mutated(text: str, seed: int) -> str:
    chance = random.Random(seed)
    for _ in range(chance.randrange(1, 12)):
        at = chance.randrange(len(text) or 1)
        piece = chance.choice([*PIECES, text[at : at + 40]])
        text = text[:at] + piece + text[at + chance.randrange(30) :]
    return text


async def read(packed: bytes, tag: str, cuts: Sequence[int] = ()) -> list[Node]:
    async def pieces() -> AsyncIterator[bytes]:
        marks = [0, *sorted(cut % (len(packed) + 1) for cut in cuts), len(packed)]
        for begin, end in pairwise(marks):
            yield packed[begin:end]

    return [record async for record in records_in(pieces(), tag, None)]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_a_mutated_catalogue_is_read_or_refused_and_lists_only_what_a_client_would_take(seed: int) -> None:
    listed: tuple[ListedProject, ...] = ()
    with suppress(ValueError):
        listed = read_catalogue(mutated(CATALOGUE, seed).encode("utf-8", "replace"))
    for project in listed:
        assert canonical_url(project.url) == project.url
        assert all(0 <= keyword < 10**8 for keyword in project.keywords)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=400))
def test_a_catalogue_of_any_bytes_is_read(body: bytes) -> None:
    assert all(project.url for project in read_catalogue(b"<projects>" + body))


@settings(max_examples=100, deadline=None)
@given(cuts=st.lists(st.integers(0, 2**20), max_size=6))
async def test_records_are_the_same_however_the_file_comes(cuts: list[int]) -> None:
    hosts = [host_of(record) for record in await read(gzip.compress(HOSTS.encode()), "host", cuts)]
    assert [(host.id, host.host_cpid, host.cpus, host.fpops) for host in hosts] == [
        (number, CPID, 2, 4.3e9) for number in range(1, 9)
    ]
    gone = await read(gzip.compress(DELETED.encode()), StatsKind.DELETED_HOSTS.tag, cuts)
    assert [record.integer("id") for record in gone] == [6, 2**40]
    left = await read(gzip.compress(LEAVINGS.encode()), StatsKind.DELETED_USERS.tag, cuts)
    assert [record.integer("id") for record in left] == [6, 2**40]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(HOSTS, "host"), (DELETED, "host"), (LEAVINGS, "user")]))
async def test_a_mutated_file_has_records_that_fit_or_is_refused(seed: int, file: tuple[str, str]) -> None:
    text, tag = file
    try:
        records = await read(gzip.compress(mutated(text, seed).encode("utf-8", "replace")), tag, [seed])
    except ProjectUnavailable:
        return
    for record in records:
        assert record.tag == tag
        assert abs(record.integer("id")) < 2**63
        host = host_of(record)
        assert math.isfinite(host.total_credit)
        assert len(host.host_cpid) in (0, 32)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.binary(max_size=8))
async def test_a_file_that_is_broken_on_its_way_is_never_taken_for_whole(seed: int, noise: bytes) -> None:
    packed, chance = gzip.compress(HOSTS.encode()), random.Random(seed)
    at = chance.randrange(10, len(packed) - 8)
    broken = packed[:at] + noise + packed[at + len(noise) + chance.randrange(1, 9) :]
    if broken == packed:
        return
    with pytest.raises(ProjectUnavailable):
        await read(broken, "host", [seed])
