"""Making a machine: everything that the driver needs, the same at every try."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select

from libs.boinc.image import Component, Surroundings
from libs.boinc.user_data import AccountManager, Agent, Attachment, render_user_data, slot_hostname
from libs.common.db import Session
from libs.common.secrets import Unsealable, Vault, authenticator_context, guest_token_context
from libs.guest import agent_source
from libs.providers.values import Begun, MachineSpec, Mark
from services.workload.domain.attached import MANAGER, Lent, by_files, joined, key_id
from services.workload.domain.states import LIVE, Wanted
from services.workload.models import Cluster, Contribution, Derivation, Machine, Resource, Template
from services.workload.settings import Guests
from services.workload.usecases.images import user_data_of
from services.workload.usecases.rules import contributions_of


async def spec_of(
    session: Session, machine_id: UUID, installation_id: UUID, vault: Vault, guests: Guests | None = None
) -> MachineSpec | None:
    """Everything the driver needs to make the machine; the same at every try. None when it is no longer wanted."""
    machine = await session.get(Machine, machine_id)
    if machine is None or machine.wanted is Wanted.GONE:
        return None
    cluster = await session.get_one(Cluster, machine.cluster_id)
    resource = await session.get_one(Resource, machine.resource_id)
    if machine.derivation_id is not None:
        derivation = await session.get_one(Derivation, machine.derivation_id)
        return _spec(machine, cluster, resource, installation_id, user_data_of(derivation))
    lent = [] if guests else await contributions_of(session, resource)
    attached = MANAGER if guests else by_files(lent_now(lent, vault))
    machine.attached = joined(machine.attached, attached)  # before the cloud hears of it
    token = vault.open(machine.sealed_guest_token, guest_token_context(machine.id))
    user_data = render_user_data(
        [_attachment(row, share, vault) for row, share in zip(lent, _shares(lent), strict=True)],
        hostname=slot_hostname(installation_id.bytes + cluster.id.bytes, machine.slot or machine.ordinal),
        guest_token=token,
        manager=AccountManager(guests.manager_url, guests.key, str(machine.id)) if guests else None,
        agent=Agent(guests.door_url, agent_source()) if guests else None,
        around=Surroundings(present=await _present(session, machine)),
    )
    return _spec(machine, cluster, resource, installation_id, user_data)


def _spec(
    machine: Machine, cluster: Cluster, resource: Resource, installation_id: UUID, user_data: str
) -> MachineSpec:
    return MachineSpec(
        name=machine.name,
        mark=Mark(installation_id, machine.id),
        cluster=cluster.ref,
        host=machine.host,
        template=machine.template_ref,
        vcpus=machine.vcpus,
        memory_mib=machine.memory_mib,
        disk_gib=machine.disk_gib,
        limit_mhz=cluster.floor_mhz_per_vcpu * machine.vcpus,
        user_data=user_data,
        network=resource.settings.get("network"),
        is_whole=machine.derivation_id is not None,
    )


async def _present(session: Session, machine: Machine) -> frozenset[Component]:
    """What the machine's image holds; a word that is not known here spares nothing."""
    template = await session.get(Template, machine.template_version_id)
    words = template.components if template is not None else []
    return frozenset(component for component in Component if component in words)


async def begun_on(session: Session, resource_id: UUID, installation_id: UUID) -> list[Begun]:
    """Machines of a resource that were being made when they were last seen."""
    known = (Machine.resource_id == resource_id, Machine.state.in_(LIVE), Machine.task_id.is_not(None))
    rows = select(Machine, Cluster.ref).join(Cluster, Cluster.id == Machine.cluster_id).where(*known)
    return [
        Begun(
            name=machine.name,
            mark=Mark(installation_id, machine.id),
            cluster=ref,
            host=machine.host,
            template=machine.template_ref,
            task_id=machine.task_id or "",
        )
        for machine, ref in (await session.execute(rows.order_by(Machine.ordinal))).all()
    ]


def lent_now(rows: Sequence[Contribution], vault: Vault) -> list[Lent]:
    """What a machine would be attached to now; a key that cannot be read has no id."""
    shares = zip(rows, _shares(rows), strict=True)
    return [Lent(row.project_url, share, _key_id(row, vault)) for row, share in shares]


def _shares(rows: Sequence[Contribution]) -> list[float]:
    """By weight for those of the highest priority; the others stand by with 0, as where an account manager tells it."""
    highest = max((row.priority for row in rows), default=0)
    return [row.weight if row.priority == highest else 0.0 for row in rows]


def _key_id(row: Contribution, vault: Vault) -> str | None:
    try:
        return key_id(row.id, vault.open(row.sealed_authenticator, authenticator_context(row.id)))
    except Unsealable:
        return None


def _attachment(row: Contribution, share: float, vault: Vault) -> Attachment:
    """A project by file, where there is no account manager."""
    key = vault.open(row.sealed_authenticator, authenticator_context(row.id))
    return Attachment(row.project_url, key, share)
