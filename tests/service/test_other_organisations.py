"""What belongs to one organisation is changed by nobody of another, also not by way of what both share."""

from typing import Any

from libs.common.auth import Role
from tests.service.lone_service import THEIRS
from tests.service.manager_house import TOKEN, opened


async def test_nobody_takes_a_projects_signature_from_machines_of_others(database_url: str) -> None:
    async with opened(database_url) as house:
        path = f"/v1/projects/{house.project_id}"
        refused = await house.lone.ask("PATCH", path, {"url_signature": None}, organisation=THEIRS)
        assert refused.status == 403, refused.body
        assert [account.detach_when_done for account in (await house.come(TOKEN)).accounts] == [False]

        signed = (await house.lone.ask("GET", path)).body["url_signature"]
        again = await house.lone.ask("PATCH", path, {"url_signature": signed}, organisation=THEIRS)
        assert again.status == 200, "a good signature does nobody harm"
        by_admin: Any = {"role": Role.ADMIN, "organisation": THEIRS}
        assert (await house.lone.ask("PATCH", path, {"url_signature": None}, **by_admin)).status == 200
