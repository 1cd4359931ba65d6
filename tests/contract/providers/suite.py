"""What every driver must keep, whatever cloud stands behind it: subclass `ProviderSuite` and give it a
`target`.

The subclass overrides the fixture `target` with one that yields a `Target`: a fresh, empty cloud (nothing of
ours in it) with an open session, and the few things a test must do to the cloud behind the driver's back.
"""

import math
from datetime import datetime
from itertools import pairwise
from uuid import uuid4

import pytest

from libs.providers.base import Capability, Cause, Power, Rejected
from tests.contract.providers.target import (
    Target,
    bring,
    check_columns,
    delete_and_wait,
    deploy,
    newest,
    seen,
)

WRONG = "not-what-was-set-6d1f"


class ProviderSuite:
    """The conformance suite."""

    @pytest.fixture
    def target(self) -> Target:
        """To be overridden."""
        raise NotImplementedError("the subclass gives the target")

    # -- looking ---------------------------------------------------------------------------------------------

    async def test_validate_tells_what_the_target_is(self, target: Target) -> None:
        facts = await target.provider.validate()
        assert facts.product
        assert facts.api_version
        assert facts.instance_id
        assert facts.missing == ()
        ours = {cluster.cluster: cluster for cluster in facts.clusters}[target.cluster]
        assert ours.name
        assert ours.hosts > 0
        assert ours.cores > 0
        assert ours.cpu_mhz > 0
        assert ours.memory_mib > 0

    async def test_hardware_is_told_of_hosts_that_are_sampled(self, target: Target) -> None:
        sample = await newest(target)
        told = {one.host: one for one in await target.provider.hardware()}
        if Capability.HOSTS_VISIBLE in target.provider.capabilities:
            assert set(sample.hosts) <= set(told)
        assert all((told[host].cores or 0) > 0 for host in sample.hosts if host in told)

    async def test_the_same_cloud_has_the_same_instance_id_twice(self, target: Target) -> None:
        first, second = await target.provider.validate(), await target.provider.validate()
        assert first.instance_id == second.instance_id

    async def test_a_wrong_password_is_rejected_as_auth(self, target: Target) -> None:
        with pytest.raises(Rejected) as refusal:
            await (await target.open(WRONG)).validate()
        assert refusal.value.cause is Cause.AUTH
        assert WRONG not in str(refusal.value)

    async def test_samples_cover_every_cluster_with_consistent_columns(self, target: Target) -> None:
        facts = await target.provider.validate()
        samples = await target.provider.sample(None)
        assert {sample.cluster for sample in samples} == {cluster.cluster for cluster in facts.clusters}
        for sample in samples:
            check_columns(sample)

    async def test_sample_times_increase(self, target: Target) -> None:
        before = await newest(target)
        await target.settle()
        after = await newest(target)
        assert after.at > before.at

    async def test_since_gives_what_was_missed_and_nothing_twice(self, target: Target) -> None:
        first = await newest(target)
        for _ in range(3):
            await target.settle()
        samples = [
            sample for sample in await target.provider.sample(first.at) if sample.cluster == target.cluster
        ]
        times: list[datetime] = [sample.at for sample in samples]
        assert times, "time has passed and nothing was sampled"
        assert times == sorted(set(times)), "doubled or out of order"
        assert times[0] > first.at, "what was known came again"
        for sample in samples:
            check_columns(sample)
        again = [
            sample for sample in await target.provider.sample(times[-1]) if sample.cluster == target.cluster
        ]
        assert not {sample.at for sample in again} & set(times)

    async def test_back_fill_knows_every_interval(self, target: Target) -> None:
        if Capability.BACKFILL not in target.provider.capabilities:
            pytest.skip("this target cannot fill back")
        first = await newest(target)
        for _ in range(3):
            await target.settle()
        samples = [
            sample for sample in await target.provider.sample(first.at) if sample.cluster == target.cluster
        ]
        gaps = {(after.at - before.at).total_seconds() for before, after in pairwise([first, *samples])}
        assert gaps == {first.interval_s}

    async def test_owner_load_is_total_minus_ours_and_follows_the_owner(self, target: Target) -> None:
        host = (await newest(target)).hosts[0]
        for fraction in (0.25, 0.6):
            await target.set_owner_load(host, fraction)
            await target.settle()
            await target.settle()
            sample = await newest(target)
            index = sample.hosts.index(host)
            owner = sample.cpu_used_mhz[index] - sample.cpu_ours_mhz[index]
            assert owner == pytest.approx(fraction * sample.cpu_capacity_mhz[index], rel=0.1)

    async def test_owner_load_is_not_negative_while_ours_runs(self, target: Target) -> None:
        host = (await newest(target)).hosts[0]
        await target.set_owner_load(host, 0.3)
        spec = target.make_spec(host=host)
        await deploy(target, spec)
        await bring(target, spec.name, Power.ON)
        await target.settle()
        await target.settle()
        sample = await newest(target)
        for used, ours in zip(sample.cpu_used_mhz, sample.cpu_ours_mhz, strict=True):
            assert used - ours >= 0

    async def test_a_template_is_found_by_name_and_by_reference(self, target: Target) -> None:
        by_name = await target.provider.find_template(target.template)
        assert by_name is not None
        assert by_name.name == target.template
        by_reference = await target.provider.find_template(by_name.reference)
        assert by_reference is not None
        assert by_reference.reference == by_name.reference
        assert await target.provider.find_template("no-such-template") is None

    # -- acting ----------------------------------------------------------------------------------------------

    async def test_create_twice_makes_one_machine(self, target: Target) -> None:
        spec = target.make_spec()
        await target.provider.create(spec)
        await target.provider.create(spec)
        await deploy(target, spec)
        await target.provider.create(spec)
        machines = await target.provider.machines()
        assert [machine.name for machine in machines] == [spec.name]
        assert machines[0].mark == spec.mark
        assert machines[0].cluster == target.cluster
        assert await target.exists(spec.name)

    async def test_a_created_machine_is_off_until_it_is_asked_to_run(self, target: Target) -> None:
        spec = target.make_spec()
        machine = await deploy(target, spec)
        assert machine.power is Power.OFF
        assert machine.error is None

    async def test_a_configured_machine_runs_under_its_limit(self, target: Target) -> None:
        spec = target.make_spec()
        await deploy(target, spec)
        machine = await bring(target, spec.name, Power.ON)
        assert machine.limit_mhz == pytest.approx(spec.limit_mhz, abs=1)
        await target.settle()
        sample = await newest(target)
        assert sum(sample.machines) == 1
        assert sum(sample.cpu_limit_mhz) == pytest.approx(spec.limit_mhz, abs=1)

    async def test_a_machine_stays_on_the_host_of_its_spec(self, target: Target) -> None:
        if Capability.PLACEMENT not in target.provider.capabilities:
            pytest.skip("this target places machines itself")
        hosts = (await newest(target)).hosts
        spec = target.make_spec(host=hosts[-1])
        await deploy(target, spec)
        machine = await bring(target, spec.name, Power.ON)
        assert machine.host == hosts[-1]

    async def test_power_states_repeat_without_harm(self, target: Target) -> None:
        spec = target.make_spec()
        await deploy(target, spec)
        await bring(target, spec.name, Power.OFF)
        for power in (Power.ON, Power.OFF):
            await bring(target, spec.name, power)
            await bring(target, spec.name, power)

    async def test_shutdown_is_seen_as_off(self, target: Target) -> None:
        spec = target.make_spec()
        await deploy(target, spec)
        await bring(target, spec.name, Power.ON)
        await target.settle()
        await bring(target, spec.name, Power.SHUTDOWN, Power.OFF)
        await bring(target, spec.name, Power.SHUTDOWN, Power.OFF)

    async def test_suspend_and_resume(self, target: Target) -> None:
        if Capability.SUSPEND not in target.provider.capabilities:
            pytest.skip("this target cannot suspend")
        spec = target.make_spec()
        await deploy(target, spec)
        await bring(target, spec.name, Power.ON)
        await bring(target, spec.name, Power.SUSPENDED)
        await bring(target, spec.name, Power.SUSPENDED)
        await target.settle()
        assert sum((await newest(target)).machines) == 0
        machine = await bring(target, spec.name, Power.ON)
        assert machine.limit_mhz == pytest.approx(spec.limit_mhz, abs=1)

    async def test_limits_show_in_the_machine_and_in_the_sample(self, target: Target) -> None:
        if Capability.LIMITS not in target.provider.capabilities:
            pytest.skip("this target has no limits")
        spec = target.make_spec()
        await deploy(target, spec)
        await bring(target, spec.name, Power.ON)
        limit, cap = spec.limit_mhz - 100, spec.limit_mhz + 400
        assert await target.provider.set_limits(target.cluster, cap, {spec.name: limit}) >= 1
        machine = await seen(target, spec.name)
        assert machine is not None
        assert machine.limit_mhz == pytest.approx(limit, abs=1)
        await target.settle()
        sample = await newest(target)
        assert sum(sample.cpu_limit_mhz) == pytest.approx(limit, abs=1)
        if Capability.POOLS in target.provider.capabilities:
            assert sample.cap_mhz == pytest.approx(cap, abs=1)

    async def test_limits_that_hold_already_change_nothing(self, target: Target) -> None:
        if Capability.LIMITS not in target.provider.capabilities:
            pytest.skip("this target has no limits")
        spec = target.make_spec()
        await deploy(target, spec)
        wanted = {spec.name: spec.limit_mhz - 50.0}
        assert await target.provider.set_limits(target.cluster, 4000.0, wanted) >= 1
        assert await target.provider.set_limits(target.cluster, 4000.0, wanted) == 0

    async def test_a_negative_limit_is_refused_and_changes_nothing(self, target: Target) -> None:
        if Capability.LIMITS not in target.provider.capabilities:
            pytest.skip("this target has no limits")
        spec = target.make_spec()
        before = await deploy(target, spec)
        for cap, limit in ((4000.0, -1.0), (-1.0, 600.0), (4000.0, math.nan)):
            with pytest.raises(Rejected) as refusal:
                await target.provider.set_limits(target.cluster, cap, {spec.name: limit})
            assert refusal.value.cause is Cause.INVALID
        after = await seen(target, spec.name)
        assert after is not None
        assert after.limit_mhz == before.limit_mhz

    async def test_delete_twice_is_success_and_the_machine_is_gone(self, target: Target) -> None:
        spec = target.make_spec()
        await deploy(target, spec)
        await delete_and_wait(target, spec.name)
        await target.provider.delete(spec.name)
        assert not await target.exists(spec.name)

    async def test_a_running_machine_can_be_deleted(self, target: Target) -> None:
        spec = target.make_spec()
        await deploy(target, spec)
        await bring(target, spec.name, Power.ON)
        await delete_and_wait(target, spec.name)
        assert not await target.exists(spec.name)

    # -- refusing --------------------------------------------------------------------------------------------

    async def test_a_look_alike_is_neither_listed_nor_touched(self, target: Target) -> None:
        name = f"tides-{uuid4()}"
        await target.add_foreign(name)
        assert await seen(target, name) is None
        for attempt in (
            lambda: target.provider.delete(name),
            lambda: target.provider.set_power(name, Power.OFF),
            lambda: target.provider.set_limits(target.cluster, 4000.0, {name: 500.0}),
        ):
            try:
                await attempt()
            except Rejected:
                continue
        assert await target.exists(name)
        assert await seen(target, name) is None

    async def test_release_refuses_while_a_machine_of_ours_is_there(self, target: Target) -> None:
        spec = target.make_spec()
        await deploy(target, spec)
        with pytest.raises(Rejected) as refusal:
            await target.provider.release(target.cluster)
        assert refusal.value.cause is Cause.CONFLICT
        assert await seen(target, spec.name) is not None
        await delete_and_wait(target, spec.name)
        await target.provider.release(target.cluster)
        await target.provider.release(target.cluster)

    async def test_release_of_a_cluster_never_used_is_success(self, target: Target) -> None:
        await target.provider.release(target.cluster)

    async def test_a_released_cluster_can_be_used_again(self, target: Target) -> None:
        await deploy(target, first := target.make_spec())
        await delete_and_wait(target, first.name)
        await target.provider.release(target.cluster)
        await deploy(target, second := target.make_spec())
        await bring(target, second.name, Power.ON)

    async def test_a_missing_template_is_not_found(self, target: Target) -> None:
        spec = target.make_spec(template="no-such-template")
        with pytest.raises(Rejected) as refusal:
            await target.provider.create(spec)
        assert refusal.value.cause is Cause.NOT_FOUND
        assert await seen(target, spec.name) is None

    async def test_power_of_an_absent_machine_is_not_found(self, target: Target) -> None:
        for power in Power:
            with pytest.raises(Rejected) as refusal:
                await target.provider.set_power(f"tides-{uuid4()}", power)
            assert refusal.value.cause is Cause.NOT_FOUND

    @pytest.mark.parametrize(
        "name", ["tides-../../etc", "tides-a/b%2f", "tides-<&\">'", "tides-\u00fc \n", ""]
    )
    async def test_an_odd_name_is_refused_or_kept_exactly(self, target: Target, name: str) -> None:
        spec = target.make_spec(name=name)
        try:
            await target.provider.create(spec)
        except Rejected as refusal:
            assert refusal.cause is Cause.INVALID  # noqa: PT017 - a refusal is one of two right answers
            assert [machine.name for machine in await target.provider.machines()] == []
            return
        await deploy(target, spec)
        assert [machine.name for machine in await target.provider.machines()] == [name]
        await delete_and_wait(target, name)

    # -- images ----------------------------------------------------------------------------------------------

    async def test_a_machine_that_is_off_becomes_a_template_that_machines_are_made_from(
        self, target: Target
    ) -> None:
        builder, provider = target.make_spec(), target.provider
        await deploy(target, builder)
        if Capability.TEMPLATES not in provider.capabilities:
            with pytest.raises(Rejected) as refusal:
                await provider.keep_as_template(builder.name)
            assert refusal.value.cause is Cause.INVALID
            await delete_and_wait(target, builder.name)
            return
        await bring(target, builder.name, Power.ON)
        with pytest.raises(Rejected) as refusal:
            await provider.keep_as_template(builder.name)
        assert refusal.value.cause is Cause.CONFLICT
        await bring(target, builder.name, Power.OFF)

        kept = await provider.keep_as_template(builder.name)

        assert (kept.name, kept.unfit) == (builder.name, None)
        assert await provider.keep_as_template(builder.name) == kept, "a repeat finds what was done"
        assert await provider.find_template(kept.reference) == kept
        assert await seen(target, builder.name) is None
        made = target.make_spec(template=kept.reference)
        await provider.create(made)
        half = await seen(target, made.name)
        assert half is None or half.mark == made.mark
        assert (await deploy(target, made)).mark == made.mark
        await delete_and_wait(target, made.name)
        assert await provider.find_template(kept.reference) is not None
        for _ in range(2):
            await provider.delete(builder.name)
            assert await provider.find_template(kept.reference) is None
        with pytest.raises(Rejected) as refusal:
            await provider.keep_as_template(builder.name)
        assert refusal.value.cause is Cause.NOT_FOUND
