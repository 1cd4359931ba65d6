"""The event catalogue against the services: who says, who hears, and what the READMEs promise."""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from libs.common.contracts.catalogue import ANY, CATALOGUE, Entry, Kind
from libs.common.contracts.replay import StatesAsked
from libs.common.contracts.supply import TokenRevoked
from libs.common.service import Service
from tools.schemas import service_names

ROOT = Path(__file__).parents[2]
NAMES = service_names()
DOORS = {TokenRevoked.key, StatesAsked.key}
"""Heard because the runner says so and not the service: by every one, or by every one that tells states."""


def _heard(name: str) -> set[str]:
    return {entry.event.key for entry in CATALOGUE if name in entry.consumers}


def _said(name: str) -> set[str]:
    return {entry.event.key for entry in CATALOGUE if entry.publisher == name}


def _modules(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def _name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _used(folder: Path) -> set[str]:
    """Class names that the code of a folder speaks of, compositions and imports left out."""
    return {
        _name_of(node)
        for path, tree in _modules(folder)
        if path.name != "main.py"
        for node in ast.walk(_without_annotations(tree))
        if isinstance(node, ast.Name | ast.Attribute)
    }


def _without_annotations(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
    return tree


def _called(name: str) -> set[str]:
    return {
        _name_of(node.func)
        for _, tree in _modules(ROOT / "services" / name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }


def test_the_catalogue_knows_no_other_services() -> None:
    assert {entry.publisher for entry in CATALOGUE} <= {*NAMES, ANY}
    assert {name for entry in CATALOGUE for name in entry.consumers} <= set(NAMES)


def test_every_key_is_a_noun_and_a_past_tense_and_stands_once() -> None:
    keys = [entry.event.key for entry in CATALOGUE]
    assert len(keys) == len(set(keys))
    irregular = {"lost"}
    for key in keys:
        match = re.fullmatch(r"[a-z]+\.(?:[a-z]+_)*([a-z]+)\.v[1-9][0-9]*", key)
        assert match, key
        # A present participle names a phase that has begun: machine_draining.
        assert match[1].endswith(("ed", "ing")) or match[1] in irregular, key


def test_what_outsiders_see_holds_no_sealed_secret() -> None:
    for entry in CATALOGUE:
        sealed = [name for name in entry.event.model_fields if "sealed" in name]
        assert not (entry.public and sealed), entry.event.key
        assert not (entry.public and entry.kind is Kind.STATE), entry.event.key


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.event.key)
def test_its_publisher_says_it(entry: Entry) -> None:
    folder = ROOT / "libs" / "common" if entry.publisher == ANY else ROOT / "services" / entry.publisher
    assert entry.event.__name__ in _used(folder)


@pytest.mark.parametrize("name", NAMES)
def test_nobody_makes_an_event_of_another_service(name: str) -> None:
    foreign = {entry.event.__name__ for entry in CATALOGUE if entry.publisher != name}
    assert _called(name) & foreign == set()


def test_everybody_hears_what_the_catalogue_lists_and_nothing_else(composed: list[Service]) -> None:
    for service in composed:
        heard = [hears.event.key for hears in service.hears]
        assert len(heard) == len(set(heard)), f"{service.name}: replicas of one queue with two handlers"
        assert set(heard) | DOORS == _heard(service.name) | DOORS, service.name
        assert TokenRevoked.key in _heard(service.name), service.name


def test_everybody_tells_every_state_that_it_publishes_to_who_asks(composed: list[Service]) -> None:
    for service in composed:
        told = {tells.event.key for tells in service.tells}
        published = {
            entry.event.key
            for entry in CATALOGUE
            if entry.publisher == service.name and entry.kind is Kind.STATE
        }
        assert told == published, service.name
        assert (StatesAsked.key in _heard(service.name)) == bool(told), service.name


def test_only_samples_expire_and_only_for_workload(composed: list[Service]) -> None:
    """Whatever else is old still counts."""
    for service in composed:
        for hears in service.hears:
            expected = service.name == "workload" and hears.event.key == "usage.sampled.v1"
            assert (hears.expires_s is not None) == expected, (service.name, hears.event.key)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("word", ["Owns", "Hears", "Says"])
def test_its_readme_says_what_it_owns_hears_and_says(name: str, word: str) -> None:
    paragraph = _paragraph(name, word)
    assert paragraph, f"services/{name}/README.md has no paragraph that begins with {word}"
    if word == "Owns":
        return
    keys = {"Hears": _heard(name), "Says": _said(name)}[word]
    patterns = set(re.findall(r"`([a-z_]+\.[a-z_*]+)(?:\.v\d+)?`", paragraph))
    known = {key.rsplit(".", 1)[0] for key in keys}
    assert {key for key in known if not any(fnmatch(key, pattern) for pattern in patterns)} <= {
        key.rsplit(".", 1)[0] for key in DOORS
    }, f"{name}: not in the README's paragraph {word}"
    assert not [pattern for pattern in patterns if not any(fnmatch(key, pattern) for key in known)], name


def _paragraph(name: str, word: str) -> str:
    """From a line that begins with the word to the next such line."""
    text = (ROOT / "services" / name / "README.md").read_text(encoding="utf-8")
    match = re.search(rf"^[-*\s]*{word}\b.*?(?=^[-*\s]*[A-Z][a-z]+\b[*:\s]|\Z)", text, re.M | re.S)
    return match[0] if match else ""
