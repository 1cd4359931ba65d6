"""How many things workload does at once, for how long it waits, and whom its guests report to."""

from dataclasses import dataclass

from libs.boinc.account import canonical_url
from libs.boinc.signing import PublicKey
from libs.common.settings import InvalidSettings, Settings

_MANAGER, _DOOR = "boinc/", "guests/"


@dataclass(frozen=True, slots=True)
class Pace:
    """Bounds for acting on one cloud; every deadline is shorter than what is left of a lease."""

    call_s: float = 20.0
    act_every_s: float = 1.0
    look_again_s: float = 2.0
    """How often the inventory is read while something is under way."""
    refused_rest_s: float = 15.0
    """How long a cluster rests whose limits the cloud refused, and an act at first: others are not held up."""
    refused_most_s: float = 300.0
    """How long an act that is refused again and again rests at most."""
    giving_back_most_s: float = 60.0
    """How long giving back rests at most where the refusal may pass: the owner waits for it."""
    look_every_s: float = 10.0
    """How often the inventory is read where every machine is as wanted."""
    check_every_s: float = 300.0
    """How often limits that should hold are asked for all the same: what holds them may have been edited by hand."""
    silence_every_s: float = 5.0
    renew_every_s: float = 15.0
    """How often machines are looked through for those that are to be replaced; a contribution's end is seen at once."""
    probe_every_s: float = 3.0
    derive_every_s: float = 3.0
    away_every_s: float = 10.0
    """How often clouds that fail are looked at, whether something should stand in for them."""
    keep_every_s: float = 3600.0
    parallel_clones: int = 4
    parallel_acts: int = 8
    looks_in_a_row: int = 6
    """Fresh looks after acts that went well, before the next beat takes over."""


@dataclass(frozen=True, slots=True)
class Guests:
    """Where guests find Tides: their account manager, pinned by its key, and the door of their agents."""

    manager_url: str
    door_url: str
    key: PublicKey


def guests_of(settings: Settings) -> Guests | None:
    """Whom guests report to; None: machines are attached by files and have no agent. Raises InvalidSettings."""
    url = settings.boinc_url.strip()
    if not url:
        return None
    try:
        is_whole = url == canonical_url(url) and url.startswith("https://") and url.endswith(f"/{_MANAGER}")
    except ValueError:
        is_whole = False
    host = url.removeprefix("https://").partition("/")[0]
    if not is_whole or "." not in host:
        raise InvalidSettings(
            "TIDES_BOINC_URL: clients would ignore this address; give https://HOST.DOMAIN/boinc/, as machines reach it"
        )
    try:
        key = PublicKey(settings.boinc_signing_key.strip() + "\n")
    except ValueError:
        raise InvalidSettings(
            "TIDES_BOINC_SIGNING_KEY: needed beside TIDES_BOINC_URL; give what `tides boinc keygen` printed"
        ) from None
    return Guests(url, url.removesuffix(_MANAGER) + _DOOR, key)
