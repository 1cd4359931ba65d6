"""What registry does by itself: secrets follow the newest key."""

from uuid import UUID

from libs.common.clock import Clock
from libs.common.db import Database
from libs.common.secrets import Vault
from services.registry.usecases.hearing import reseal_batch

RESEAL_EVERY_S = 600.0


async def reseal(database: Database, vault: Vault, clock: Clock) -> None:
    """Seal with the newest key what an older one sealed, and tell everybody."""
    after: UUID | None = None
    while True:
        async with database.transaction() as session:
            after = await reseal_batch(session, vault, after, clock.now())
        if after is None:
            return
