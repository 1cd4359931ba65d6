"""Answers that are cut short, drip or break off, and sessions that end at any moment: on either wire."""

import random
import sys
import time

import pytest

from libs.providers.base import Cause, Power, Unavailable
from tests.contract.providers.target import bring, delete_and_wait, deploy, seen
from tests.contract.providers.vsphere_target import VSphereTarget
from tests.faultproxy import FaultProxy, Trickle

READS = {"sample": "QueryPerf", "machines": "RetrievePropertiesEx"}
WRITES = ("CloneVM_Task", "ReconfigVM_Task", "CreateFolder", "CreateResourcePool")


async def read(target: VSphereTarget, how: str) -> int:
    """A read over the raw wire, or over pyVmomi's: how much it brings."""
    return len(await (target.provider.sample(None) if how == "sample" else target.provider.machines()))


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize("size", [0, 1, 200, 700])
async def test_an_answer_cut_short_is_none_and_the_next_one_counts(
    target: VSphereTarget, proxy: FaultProxy, how: str, size: int
) -> None:
    whole = await read(target, how)
    proxy.rules.truncate[READS[how]] = size
    with pytest.raises(Unavailable) as refusal:
        await read(target, how)
    assert refusal.value.cause is Cause.UNREACHABLE
    proxy.rules.truncate.clear()
    assert await read(target, how) == whole


@pytest.mark.parametrize("how", READS)
async def test_an_answer_that_breaks_off_is_none_and_the_next_one_counts(
    target: VSphereTarget, proxy: FaultProxy, how: str
) -> None:
    whole = await read(target, how)
    proxy.rules.break_off[READS[how]] = 1
    with pytest.raises(Unavailable) as refusal:
        await read(target, how)
    assert refusal.value.cause is Cause.UNREACHABLE
    assert await read(target, how) == whole


@pytest.mark.parametrize("how", READS)
async def test_an_answer_that_drips_is_read_to_its_end_if_it_comes_in_time(
    target: VSphereTarget, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    whole = await read(target, how)
    proxy.rules.trickle[READS[how]] = Trickle(400, 0.001)
    assert await read(target, how) == whole
    monkeypatch.setattr(sys.modules["libs.providers.vsphere.driver"], "ROUND_TIMEOUT_S", 0.5)
    proxy.rules.trickle[READS[how]] = Trickle(1, 0.05)
    began = time.monotonic()
    with pytest.raises(Unavailable) as refusal:
        await read(target, how)
    assert refusal.value.cause is Cause.TIMEOUT
    assert time.monotonic() - began < 3
    proxy.rules.trickle.clear()
    assert await read(target, how) == whole


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize("spoil", ["truncate", "break_off"])
async def test_a_write_whose_answer_is_spoilt_is_not_repeated_but_found(
    target: VSphereTarget, proxy: FaultProxy, method: str, spoil: str
) -> None:
    spec = target.make_spec()
    getattr(proxy.rules, spoil)[method] = 1
    with pytest.raises(Unavailable):
        await target.provider.create(spec)
    asked = proxy.calls[method]
    assert asked == 1
    proxy.rules.heal()
    assert (await deploy(target, spec)).configured
    assert (await target.back_door.names()).count(spec.name) == 1
    assert proxy.calls[method] == (1 if method != "ReconfigVM_Task" else proxy.calls[method])


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_sessions_that_end_at_random_cost_one_login_each_and_nothing_is_done_twice(
    target: VSphereTarget, proxy: FaultProxy, seed: int
) -> None:
    """A call may meet two ends of a session and is then tried again by who asked; a write never."""
    spec = target.make_spec()
    await target.provider.machines()
    logins = proxy.calls["Login"]
    proxy.rules.expiry, proxy.rules.expiry_share = random.Random(seed), 0.03

    async def patiently(act: str) -> None:
        for _ in range(30):
            try:
                if act == "deploy":
                    await deploy(target, spec)
                elif act == "delete":
                    await delete_and_wait(target, spec.name)
                else:
                    await bring(target, spec.name, Power(act))
                return
            except Unavailable as refusal:
                met = refusal
        raise met

    for act in ("deploy", "on", "off", "delete"):
        await patiently(act)
    proxy.rules.expiry = None
    assert await seen(target, spec.name) is None
    assert proxy.sessions.expired > 0
    assert proxy.calls["Login"] - logins == proxy.sessions.expired
    for method in ("CloneVM_Task", "PowerOnVM_Task", "PowerOffVM_Task", "Destroy_Task"):
        assert proxy.obeyed[method] == 1, method
