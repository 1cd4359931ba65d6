"""What contribution is told from outside to be an account manager."""

from dataclasses import dataclass

from libs.boinc.signing import PublicKey
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
