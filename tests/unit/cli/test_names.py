"""Things that bear one name: what a person is told to say instead does tell them apart."""

from typing import Any, cast

import pytest

from services.cli.client import Client, Failed
from services.cli.names import CLUSTER, RESOURCE, Kind, find


class Known:
    """A client that knows these things and nothing else."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self._items = list(items)

    async def pages(self, _path: str) -> list[dict[str, Any]]:
        return self._items


def cluster(number: int, resource: str) -> dict[str, Any]:
    return {"id": f"id-{number}", "name": "prod", "resource": resource}


@pytest.mark.parametrize(
    ("kind", "wanted", "items", "ways"),
    [
        (CLUSTER, "prod", [cluster(1, "east"), cluster(2, "west")], "east/prod, west/prod"),
        (CLUSTER, "east/prod", [cluster(1, "east"), cluster(2, "east")], "id-1, id-2"),
        (RESOURCE, "lab", [{"id": "id-1", "name": "lab"}, {"id": "id-2", "name": "lab"}], "id-1, id-2"),
    ],
)
async def test_things_of_one_name_are_told_apart(
    kind: Kind, wanted: str, items: list[dict[str, Any]], ways: str
) -> None:
    client = cast("Client", Known(*items))
    with pytest.raises(Failed, match=f"{ways}$"):
        await find(client, kind, wanted)
    assert (await find(client, kind, "id-2"))["id"] == "id-2"
