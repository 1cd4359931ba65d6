"""Composition of workload."""

from functools import partial
from typing import NamedTuple
from uuid import UUID, uuid5

from libs.common.app import create_app
from libs.common.contracts.derivation import DerivationChanged
from libs.common.contracts.resource import InventoryChanged, ResourceChanged
from libs.common.contracts.supply import (
    ContributionChanged,
    GuestHealthChanged,
    MachineDrained,
    PolicyAssigned,
    TemplateChanged,
)
from libs.common.contracts.usage import UsageSampled
from libs.common.ids import new_id
from libs.common.lanes import Lanes
from libs.common.secrets import guest_token_context
from libs.common.service import Beat, Hears, Runtime, Sealed, Service
from libs.common.wake import Errands, Wake
from libs.providers.counted import Counting
from libs.providers.sessions import Sessions
from services.workload.api import sweeps
from services.workload.api.routes import router
from services.workload.models import Base, Contribution, Machine, Resource
from services.workload.reconcile import beats
from services.workload.reconcile.hands import Hands
from services.workload.settings import Pace, guests_of
from services.workload.usecases import changing, judging, projections
from services.workload.usecases.following import Means
from services.workload.usecases.instruments import Instruments
from services.workload.usecases.measuring import figures

_PLURALS = ("clusters", "workloads", "machines", "decisions", "events", "sweeps")
_UNNAMED = UUID("9c1f7e0a-5a7d-5c22-8f55-2a7e0a9d1b64")


def build(runtime: Runtime) -> Service:
    """Workload as a value."""
    database, clock, pace = runtime.open_database("workload"), runtime.clock, Pace()
    guests = guests_of(runtime.settings)
    acting = Errands(runtime.activity)
    means = Means(clock, runtime.vault, Instruments(runtime.registry), acting, apart=guests is not None)
    silence, renewing, probing, deriving = (runtime.wake() for _ in range(4))
    hands = Hands(
        database=database,
        sessions=Sessions(runtime.vault, clock, Counting(runtime.metrics, "workload")),
        lanes=Lanes(runtime.activity, runtime.metrics),
        clock=clock,
        vault=runtime.vault,
        means=means,
        replica=new_id(),
        installation_id=runtime.settings.installation_id or uuid5(_UNNAMED, "tides"),
        pace=pace,
        guests=guests,
        tracing=runtime.tracing,
    )
    app = create_app(
        "workload", routers=[router, sweeps.router], settings=runtime.settings, verifier=runtime.verifier
    )
    app.state.database, app.state.means = database, means
    wakes = Wakes(acting, silence, renewing, probing, deriving, runtime.wake(), runtime.wake())
    return Service(
        name="workload",
        metadata=Base.metadata,
        migrations="services.workload.migrations",
        database=database,
        app=app,
        prefixes=tuple(f"/v1/{plural}" for plural in _PLURALS),
        hears=_ears(means, runtime.settings.sample_ttl_s, (acting, renewing, probing, deriving)),
        beats=_beats(hands, means, wakes),
        figures=(figures(clock),),
        seals=(
            Sealed(Machine.sealed_guest_token, lambda machine: guest_token_context(machine.id)),
            Sealed(Resource.sealed_secret),
            Sealed(Contribution.sealed_authenticator),
        ),
        closes=(hands.give_back,),
    )


class Wakes(NamedTuple):
    """What makes each beat come sooner."""

    acting: Wake
    silence: Wake
    renewing: Wake
    probing: Wake
    deriving: Wake
    keeping: Wake
    standing_in: Wake


def _beats(hands: Hands, means: Means, wakes: Wakes) -> tuple[Beat, ...]:
    database, clock, pace = hands.database, hands.clock, hands.pace
    has_door = hands.guests is not None
    renew = partial(beats.renew_all, database, means, by_manager=has_door)
    probe = partial(beats.probe_all, database, means, has_door=has_door)
    return (
        Beat(
            "judge_silence",
            pace.silence_every_s,
            partial(beats.judge_silent, database, means),
            wakes.silence,
        ),
        Beat("renew", pace.renew_every_s, renew, wakes.renewing),
        Beat("probe", pace.probe_every_s, probe, wakes.probing),
        Beat("derive", pace.derive_every_s, partial(beats.derive_all, database, means), wakes.deriving),
        Beat("act", pace.act_every_s, partial(beats.act, hands), wakes.acting),
        Beat("stand_in", pace.away_every_s, partial(beats.note_away, database, clock), wakes.standing_in),
        Beat("keep", pace.keep_every_s, partial(beats.keep_house, database, clock), wakes.keeping),
    )


def _ears(means: Means, sample_ttl_s: float, begun: tuple[Wake, Wake, Wake, Wake]) -> tuple[Hears, ...]:
    acting, renewing, probing, deriving = begun
    wakes = (acting,)
    judge = partial(judging.judge_samples, means)
    return (
        Hears(UsageSampled, judge, once=False, expires_s=sample_ttl_s),
        Hears(ResourceChanged, partial(changing.change_resource, means), once=False, wakes=(acting, probing)),
        Hears(InventoryChanged, projections.remember_inventory, once=False),
        Hears(PolicyAssigned, projections.remember_policy, once=False),
        Hears(TemplateChanged, projections.remember_template, once=False, wakes=(acting, deriving)),
        Hears(DerivationChanged, projections.remember_derivation, once=False, wakes=(deriving,)),
        Hears(ContributionChanged, projections.remember_contribution, once=False, wakes=(renewing,)),
        Hears(GuestHealthChanged, projections.remember_health, once=False, wakes=(renewing,)),
        Hears(MachineDrained, projections.remember_drained, once=False, wakes=wakes),
    )
