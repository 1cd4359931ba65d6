"""What it takes to ask a project and to keep what it said."""

from dataclasses import dataclass

from libs.boinc.web import Reach
from libs.common.clock import Clock
from libs.common.db import Database
from libs.common.secrets import Vault


@dataclass(frozen=True, slots=True)
class Means:
    """Database, clock and vault of the process, and how far it may ask."""

    database: Database
    clock: Clock
    vault: Vault
    reach: Reach
    """Where projects are asked."""
