"""Clones that a dead process had begun: another finds them by the tasks' ids, shows them and calls them off."""

from dataclasses import replace

import pytest

from libs.common.clock import WallClock
from libs.providers.base import Begun, Capability, MachineSeen
from libs.providers.vsphere import VSphereProvider
from libs.providers.vsphere.driver import VSphereDriver
from tests.contract.providers.vsphere_target import VSphereTarget
from tests.faultproxy import FaultProxy, Late
from tests.support import until


async def begin_anew(target: VSphereTarget) -> VSphereProvider:
    """A process of its own: its driver remembers nothing."""
    connection = target.connection(target.vcsim.password, target.vcsim.ca_file.read_text())
    settings = {"network": target.network}
    return await VSphereDriver().open(replace(connection, settings=settings), target.vault, WallClock())


async def test_another_process_finds_a_clone_again_shows_its_progress_and_calls_it_off(
    target: VSphereTarget, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.providers.vsphere.deploy.CLONE_WAIT_S", 0.2)
    spec = target.make_spec()
    proxy.rules.late["CloneVM_Task"] = Late(600.0)
    died = await begin_anew(target)
    await died.create(spec)
    (begun,) = await died.machines()
    assert begun.task_id is not None
    await died.aclose()

    fresh = await begin_anew(target)
    try:
        assert Capability.RECALL in fresh.capabilities
        assert await fresh.machines() == []
        told = Begun(spec.name, spec.mark, spec.cluster, spec.host, spec.template, begun.task_id)
        strange = [replace(told, task_id="task-999999"), replace(told, template="another one")]
        await fresh.recall(strange)
        assert await fresh.machines() == [], "an id that came again for something else is left alone"

        await fresh.recall([told])

        async def progress() -> MachineSeen | None:
            (machine,) = await fresh.machines()
            return machine if machine.progress is not None else None

        found = await until(progress, what="progress in the other process")
        assert (found.name, found.mark, found.task_id) == (spec.name, spec.mark, begun.task_id)
        await fresh.recall([replace(told, name="another-machine")])
        assert [machine.name for machine in await fresh.machines()] == [spec.name], (
            "one task makes one machine"
        )
        asked = proxy.calls.total()
        await fresh.recall([told])
        assert proxy.calls.total() <= asked + 1, "what is known is not asked for (but changes are waited for)"
        await fresh.create(spec)
        assert proxy.calls["CloneVM_Task"] == 1
        await fresh.delete(spec.name)
        assert proxy.tasks.cancelled == 1
        await fresh.recall([told])
        assert await fresh.machines() == [], "it has ended"
        assert spec.name not in await target.back_door.names()
    finally:
        await fresh.aclose()
