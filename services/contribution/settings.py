"""What contribution is told from outside to be an account manager."""

from dataclasses import dataclass

from libs.boinc.signing import PublicKey
from libs.boinc.web import Reach, reach_of
from libs.common.settings import InvalidSettings, Settings

NAME = "Tides"


@dataclass(frozen=True, slots=True)
class Manager:
    """Who we are to BOINC clients."""

    key: PublicKey
    """Pinned by every client: it can never change."""
    name: str = NAME


def manager_of(settings: Settings) -> Manager | None:
    """The account manager, where a key is given; None: machines are attached by files. Raises InvalidSettings."""
    text = settings.boinc_signing_key.strip()
    if not text:
        return None
    try:
        return Manager(PublicKey(text + "\n"))
    except ValueError:
        raise InvalidSettings(
            "TIDES_BOINC_SIGNING_KEY: no public signing key; give what `tides boinc keygen` printed, best as a file "
            "by TIDES_BOINC_SIGNING_KEY_FILE"
        ) from None


def project_reach(settings: Settings) -> Reach:
    """Where projects are asked. Raises InvalidSettings."""
    try:
        return reach_of(settings.boinc_local_projects)
    except ValueError as error:
        raise InvalidSettings(
            f"TIDES_BOINC_LOCAL_PROJECTS: {error}; give host names, addresses and networks, separated by commas"
        ) from None
