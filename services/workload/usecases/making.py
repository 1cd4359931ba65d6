"""Making a machine: everything that the driver needs, the same at every try."""

from uuid import UUID

from libs.boinc.user_data import AccountManager, Agent, Attachment, render_user_data, slot_hostname
from libs.common.db import Session
from libs.common.secrets import Vault, authenticator_context, guest_token_context
from libs.guest import agent_source
from libs.providers.values import MachineSpec, Mark
from services.workload.domain.states import Wanted
from services.workload.models import Cluster, Machine, Resource
from services.workload.settings import Guests
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
    attachments = [] if guests else await _attachments(session, resource, vault)
    token = vault.open(machine.sealed_guest_token, guest_token_context(machine.id))
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
        user_data=render_user_data(
            attachments,
            hostname=slot_hostname(installation_id.bytes + cluster.id.bytes, machine.ordinal),
            guest_token=token,
            manager=AccountManager(guests.manager_url, guests.key, str(machine.id)) if guests else None,
            agent=Agent(guests.door_url, agent_source()) if guests else None,
        ),
        network=resource.settings.get("network"),
    )


async def _attachments(session: Session, resource: Resource, vault: Vault) -> list[Attachment]:
    """The projects by file, where there is no account manager."""
    return [
        Attachment(
            row.project_url, vault.open(row.sealed_authenticator, authenticator_context(row.id)), row.weight
        )
        for row in await contributions_of(session, resource)
    ]
