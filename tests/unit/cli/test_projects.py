"""`tides project`: by the catalogue or by address, with terms that somebody has read."""

from pathlib import Path
from typing import Any

from tests.unit.cli.conftest import Type
from tests.unit.cli.house import House

DIGEST = "0123456789abcdef" * 4
SEEN = {"trouble": None, "failing_since": None, "master_url": "https://p.example/"}


def project(**changes: Any) -> dict[str, Any]:
    bare = {"id": "1", "name": "P", "url": "https://p.example/", "url_signature": None, "seen": SEEN}
    return {**bare, "consent": None, "terms_changed": False, **changes}


def listed(name: str, url: str, area: str = "Physics") -> dict[str, Any]:
    return {"name": name, "url": url, "area": area, "specific_area": "", "home": "A lab"}


def test_a_project_of_the_catalogue_needs_no_address_and_is_asked_first(house: House, tides: Type) -> None:
    house.kept["listed-projects"] = [
        listed("Docking", "https://d.example/"),
        listed("Two", "a"),
        listed("Two", "b"),
    ]
    house.answers["POST", "/v1/projects"] = (201, project(name="docking", url="https://d.example/"))

    assert tides("project", "add", "docking").out == "docking at https://d.example/\n"
    sent = {"name": "docking", "url": "https://d.example/", "verify": True}
    assert house.asked[-1] == ("POST", "/v1/projects", sent)
    assert tides("project", "add", "P", "https://p.example/", "--no-check").code == 0
    assert house.asked[-1][2]["verify"] is False

    for name, count in (("two", "2"), ("Nobody", "no")):
        said = tides("project", "add", name)
        assert said.code == 1
        assert said.err == f"tides: URL: the catalogue has {count} of this name; give its master URL\n"


def test_the_catalogue_goes_as_it_is_and_comes_by_area(house: House, tides: Type, tmp_path: Path) -> None:
    file = tmp_path / "all_projects_list.xml"
    assert tides("project", "catalogue", "--file", str(file)).err.startswith("tides: --file: ")
    file.write_text("<projects/>")
    house.answers["PUT", "/v1/listed-projects"] = (200, {"projects": 0, "run_here": 0})

    house.kept["listed-projects"] = []
    assert "--file all_projects_list.xml" in tides("project", "catalogue", "--file", str(file)).err
    assert ("PUT", "/v1/listed-projects", "<projects/>") in house.asked
    house.kept["listed-projects"] = [listed("Z", "https://z/", "B"), listed("A", "https://a/", "A")]
    out = tides("project", "catalogue").out
    assert out.index("https://a/") < out.index("https://z/")


def test_only_who_names_the_terms_that_were_shown_agrees(house: House, tides: Type) -> None:
    house.kept["projects"] = [project()]
    check = {"terms_sha256": DIGEST, "terms": "Be kind"}
    house.answers["POST", "/v1/projects/1/check"] = (200, check)
    consent = {"user_name": "ida", "terms_sha256": DIGEST}
    house.answers["PUT", "/v1/projects/1/consent"] = (200, project(consent=consent))

    for wrong in ((), ("--terms", DIGEST[:8]), ("--terms", "f" * 16)):
        said = tides("project", "agree", "P", *wrong)
        assert (said.code, said.out) == (1, "Be kind\n")
        assert said.err.endswith(f"--terms {DIGEST[:16]}\n")
    assert "PUT" not in {method for method, _, _ in house.asked}

    assert (
        tides("project", "agree", "P", "--terms", DIGEST[:16]).out
        == "ida agreed to terms 0123456789abcdef of P\n"
    )
    assert house.asked[-1] == ("PUT", "/v1/projects/1/consent", {"terms_sha256": DIGEST})


def test_trouble_and_other_terms_are_seen_in_the_list(house: House, tides: Type) -> None:
    down = SEEN | {"trouble": "It does not answer.", "failing_since": "2026-11-20T12:00:00Z"}
    house.kept["projects"] = [
        project(name="A", seen=None),
        project(name="B", seen=down, terms_changed=True),
        project(name="C", seen=SEEN | {"master_url": "https://other.example/"}, consent={"user_name": "ida"}),
        project(name="D"),
    ]
    lines = tides("project", "list").out.splitlines()[2:]
    for line, words in zip(
        lines,
        (
            "never asked",
            "It does not answer. (since 2026-11-20 12:00:00)",
            "calls itself https://other.example/",
            " up ",
        ),
        strict=True,
    ):
        assert words in line
    assert "changed: read and agree anew" in lines[1]
    assert "agreed" in lines[2]
