"""A vCenter that answers 503 for ten minutes, on a stepped clock: it is asked as when it is well, nothing is lost."""

from datetime import datetime, timedelta

from libs.common.clock import SteppedClock, WallClock
from libs.common.contracts.resource import ResourceDegraded, ResourceRecovered
from libs.common.contracts.usage import Quality, UsageSampled
from libs.common.runner import Running
from libs.providers.base import sealing_context
from tests.contract.providers.vsphere_target import VSphereTarget
from tests.faultproxy import FaultProxy
from tests.service.monitor_house import House, open_house
from tests.support import until
from tools.parts.vcsim import Vcsim

INTERVAL_S = 20
MINUTES = 10


class Lab:
    """A monitor whose time passes with the cloud's, twenty seconds at once."""

    def __init__(self, house: House, run: Running, clock: SteppedClock, vcsim: Vcsim) -> None:
        self.house = house
        self._run = run
        self._clock = clock
        self._cloud = VSphereTarget(vcsim, vcsim.url, "")

    async def run(self, intervals: int) -> None:
        """Let so many intervals pass, each when all that was due in the one before is done."""
        for _ in range(intervals):
            await self._cloud.settle()
            end = self._clock.now() + timedelta(seconds=INTERVAL_S)
            reached: list[bool] = []
            timer = self._clock.call_later(INTERVAL_S, lambda: reached.append(True))  # noqa: B023
            while self._clock.now() < end:
                await self._run.activity.idle()
                self._clock.advance()
            timer.cancel()
        await self._run.activity.idle()

    def ends(self) -> list[datetime]:
        """The ends of the intervals that were published of the first cluster, oldest first."""
        heard = self.house.heard(UsageSampled)
        return sorted(sample.at for event in heard for sample in event.samples)

    def missing(self, since: datetime) -> set[datetime]:
        """The ends of intervals that were not published, up to the newest that was."""
        ends = self.ends()
        steps = round((ends[-1] - since).total_seconds() / INTERVAL_S)
        return {since + timedelta(seconds=INTERVAL_S * step) for step in range(steps + 1)} - set(ends)

    def heard(self, kind: type[ResourceDegraded] | type[ResourceRecovered]) -> int:
        return len(self.house.heard(kind))


async def test_ten_minutes_of_503_are_one_outage_without_a_storm_and_are_read_afterwards(
    database_url: str, vcsim: Vcsim
) -> None:
    await vcsim.start(clusters=1, hosts=2, vms=1, flags=("-perf-default", "100"))
    clock = SteppedClock(WallClock().now())
    async with (
        FaultProxy.before(vcsim) as proxy,
        open_house(database_url) as house,
        house.monitor(clock) as run,
    ):
        lab, ca_pem = Lab(house, run, clock, vcsim), vcsim.ca_file.read_text()
        context = sealing_context(proxy.url, ca_pem, None)
        resource = house.resource(
            proxy.url, vcsim.password, provider="vsphere", ca_pem=ca_pem, username=vcsim.username,
            interval_s=float(INTERVAL_S), sealed_secret=house.settings.vault().seal(vcsim.password, context),
        )  # fmt: skip
        await house.announce(resource)
        await until(lambda: house.fetch("select id from resource"), what="the resource to be known")
        await lab.run(4)
        await until(lambda: len(lab.ends()) >= 2, what="samples")
        before, logins = lab.ends()[-1], proxy.calls["Login"]
        assert logins == 1

        proxy.calls.clear()
        proxy.rules.status["*"] = 503
        await lab.run(MINUTES * 60 // INTERVAL_S)
        await until(lambda: lab.heard(ResourceDegraded) == 1, what="the outage to be said")
        failures = (await house.fetch("select failures from resource"))[0][0]
        assert 25 <= failures <= 35, "it is asked once an interval, as when it is well"
        assert proxy.calls.total() <= 4 * failures
        assert proxy.calls["Login"] == 0, "nobody logs in where nobody answers"
        assert lab.ends()[-1] == before

        proxy.rules.heal()
        await lab.run(2)
        await until(lambda: lab.heard(ResourceRecovered) == 1, what="the return to be said")
        assert proxy.calls["Login"] == 1
        (recovered,) = house.heard(ResourceRecovered)
        assert 9.5 * 60 <= recovered.outage_s <= 11.5 * 60
        await lab.run(1)

        await until(lambda: not lab.missing(before), what="every interval of the outage")
        ends = lab.ends()
        assert len(ends) == len(set(ends)), "and none of them twice"
        assert (ends[-1] - before).total_seconds() >= MINUTES * 60
        qualities = [sample.quality for event in house.heard(UsageSampled) for sample in event.samples]
        assert qualities.count(Quality.BACKFILLED) >= 25
        assert lab.heard(ResourceDegraded) == 1
