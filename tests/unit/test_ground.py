"""What the repository promises about itself: locks without hosts, rooms under contract."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-uv.lock"]


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9][a-z0-9.-]*)==([^ ;\\]+)", (ROOT / lock).read_text(), re.M))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_hashes_and_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()

    assert "--hash=sha256:" in text
    assert not re.search(r"://|--index|--find-links|--trusted-host", text)


def test_tests_run_on_the_versions_that_are_shipped() -> None:
    shipped, tested = pins("requirements.lock"), pins("requirements-dev.lock")

    assert {name: tested.get(name) for name in shipped} == shipped


def test_every_service_is_under_the_contract_of_rooms() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    listed = {service for contract in contracts for service in contract.get("containers", [])}

    services = {f"services.{path.parent.name}" for path in (ROOT / "services").glob("*/domain.py")}
    services |= {f"services.{path.parent.name}" for path in (ROOT / "services").glob("*/usecases*")}

    assert services <= listed
