"""Projects that machines get as files."""

from uuid import UUID

import pytest

from libs.common.secrets import Vault, authenticator_context
from services.workload.domain.attached import by_files, why_outdated
from services.workload.models import Contribution
from services.workload.usecases.making import lent_now


@pytest.fixture
def vault() -> Vault:
    return Vault({"k": bytes(32)})


def contribution(vault: Vault, number: int, weight: float, priority: int) -> Contribution:
    row_id = UUID(int=number)
    key = vault.seal(f"{number}_{'a' * 32}", authenticator_context(row_id))
    return Contribution(
        id=row_id,
        project_url=f"https://{number}/",
        weight=weight,
        priority=priority,
        sealed_authenticator=key,
    )


def test_who_comes_first_has_all_of_a_machine_and_the_others_stand_by(vault: Vault) -> None:
    rows = [contribution(vault, number, weight, 5) for number, weight in ((1, 3.0), (2, 1.0))]
    rows.append(contribution(vault, 3, 9.0, 0))
    assert [each.weight for each in lent_now(rows, vault)] == [3.0, 1.0, 0.0]
    before = by_files(lent_now(rows, vault))
    rows[2].priority = 6
    assert [each.weight for each in lent_now(rows, vault)] == [0.0, 0.0, 9.0]
    outdated = why_outdated(before, by_files(lent_now(rows, vault)))
    assert outdated is not None
    assert "shares" in outdated.why
