"""The lines that `tides vsphere` prints: whole, the least there is, and safe to paste whatever the names are."""

import json
import shlex

import pytest

from tests.unit.cli.conftest import Type

ROLE: tuple[str, ...] = (
    "vsphere",
    "role",
    "--principal",
    "LAB\\tides",
    "--datacenter",
    "DC0",
    "--cluster",
    "C1",
    "--cluster",
    "C2",
)
ROLE += ("--datastore", "ds1", "--network", "science", "--template", "images/worker")


def test_every_privilege_is_in_one_role_and_nothing_is_granted_on_the_root(tides: Type) -> None:
    said = tides(*ROLE)
    listed = json.loads(tides("vsphere", "privileges", "--json").out)

    lines = [shlex.split(line) for line in said.out.splitlines()]
    created = {name for line in lines if line[1] == "role.create" for name in line[3:]}
    assert created == {each["privilege"] for each in listed if each["on"] not in ("root", "host")}
    assert "Datastore.FileManagement" in {each["privilege"] for each in listed if each["on"] == "host"}
    granted = {line[-1]: line[3] for line in lines if line[1] == "permissions.set"}
    assert granted == {
        "/DC0": "-role=ReadOnly",
        "/DC0/vm/tides": "-role=Tides-folder",
        "/DC0/vm/images/worker": "-role=Tides-template",
        "/DC0/host/C1": "-role=Tides-cluster",
        "/DC0/host/C2": "-role=Tides-cluster",
        "/DC0/datastore/ds1": "-role=Tides-datastore",
        "/DC0/network/science": "-role=Tides-network",
    }
    assert said.code == 0


def test_the_same_for_powercli(tides: Type) -> None:
    said = tides(*ROLE, "--tool", "powercli").out

    listed = json.loads(tides("vsphere", "privileges", "--json").out)
    for each in (one for one in listed if one["on"] != "host"):  # a single host is no vCenter's business
        assert (f"'{each['privilege']}'" in said) == (each["on"] != "root")
    assert said.count("New-VIPermission") == 7
    assert "(Get-Template -Name 'worker' -Location $dc)" in said


def test_a_name_is_never_a_command(tides: Type) -> None:
    hostile = "x'; rm -rf /; $(reboot) `id` \u2019; Stop-Computer"
    for tool in ("govc", "powercli"):
        said = tides(*ROLE, "--datacenter", hostile, "--tool", tool).out
        if tool == "govc":
            assert all(shlex.split(line)[0] == "govc" for line in said.splitlines())
            assert any(shlex.split(line)[-1] == f"/{hostile}" for line in said.splitlines())
        else:
            assert "'x''; rm -rf /; $(reboot) `id` \u2019\u2019; Stop-Computer'" in said


@pytest.mark.parametrize("name", ["", "a\nb", "a\x1b[2J"])
def test_a_name_that_no_terminal_shows_is_refused_in_one_line(tides: Type, name: str) -> None:
    said = tides(*ROLE, "--folder", name)
    assert (said.code, said.out) == (1, "")
    assert len(said.err.splitlines()) == 1
