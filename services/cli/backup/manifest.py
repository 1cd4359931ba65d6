"""What a backup says of itself: enough to refuse a restore that would not work, before anything is written."""

import hashlib
import hmac
from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.common.secrets import parse_keys
from libs.common.settings import Settings
from services.cli.client import Failed, plain

FILE = "manifest.json"
MOST_BYTES = 1_000_000
CHUNK = 1 << 20
_CHECK = b"tides backup: is this the key?"


class Migrations(BaseModel):
    """How far a schema was: the service's own history, and that of the doors' tables."""

    model_config = ConfigDict(frozen=True)
    service: str
    doors: str


class Key(BaseModel):
    """A sealing key that the backup needs. The key itself is never in it."""

    model_config = ConfigDict(frozen=True)
    secrets: int
    """How many it sealed."""
    check: str | None
    """By which the same key is known again, not a thing that it could be found by; None: it was not at hand."""


class Dump(BaseModel):
    """One file beside the manifest, as `pg_dump` made it."""

    model_config = ConfigDict(frozen=True)
    file: Literal["services.dump", "bus.dump"]
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """The whole of it."""

    model_config = ConfigDict(frozen=True)
    format: Literal[1] = 1
    tides: str
    made_at: datetime
    """The moment of the snapshot, by the database's clock."""
    postgresql: str
    installation_id: UUID | None
    """None: no workload had run."""
    schemas: dict[str, Migrations]
    sealing_keys: dict[str, Key]
    dumps: tuple[Dump, ...]


def read_manifest(folder: Path) -> Manifest:
    """Read it. Raises Failed in one line."""
    path = folder / FILE
    try:
        with path.open("rb") as file:
            return Manifest.model_validate_json(file.read(MOST_BYTES))
    except OSError as error:
        raise Failed(
            f"{path}: {error.strerror}; name a folder that `tides backup` made and this user may read"
        ) from None
    except ValidationError as error:
        where = plain(".".join(map(str, error.errors()[0]["loc"])) or "the whole")
        raise Failed(
            f"{path} is no manifest of this version's: {where} is wrong; take another backup"
        ) from None


def check_dumps(folder: Path, manifest: Manifest) -> None:
    """Read every file to its end. Raises Failed for one that is not as it was made."""
    for dump in manifest.dumps:
        digest, size = hashlib.sha256(), 0
        try:
            with (folder / dump.file).open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
        except OSError as error:
            raise Failed(f"{folder / dump.file}: {error.strerror}; take another backup") from None
        if (size, digest.hexdigest()) != (dump.size, dump.sha256):
            raise Failed(f"{folder / dump.file} is damaged: its checksum is another; take another backup")


def check_of(key: bytes) -> str:
    """The mark by which a key is known again; a key of 32 random bytes cannot be found by it."""
    return hmac.new(key, _CHECK, hashlib.sha256).hexdigest()[:16]


def check_keys(manifest: Manifest, settings: Settings) -> None:
    """Raises Failed where a key is missing that something in the backup is sealed with."""
    here = parse_keys(settings.sealing_keys.get_secret_value())
    for key_id, needed in manifest.sealing_keys.items():
        name = plain(key_id)
        if key_id not in here:
            raise Failed(
                f"{needed.secrets} secrets of the backup are sealed with key {name!r}, which TIDES_SEALING_KEYS"
                " does not hold: add it to the list (docs/keys.md)"
            )
        if needed.check is not None and needed.check != check_of(here[key_id]):
            raise Failed(
                f"TIDES_SEALING_KEYS holds another key under the id {name!r} than the one that sealed"
                f" {needed.secrets} secrets of the backup: give the installation's own key"
            )


def check_installation(manifest: Manifest, settings: Settings) -> None:
    """Raises Failed where the machines of the backup would be strangers to this installation."""
    theirs, ours = manifest.installation_id, settings.installation_id
    if theirs is not None and theirs != ours:
        raise Failed(
            f"the backup is of installation {theirs}, these settings are of {ours}: set TIDES_INSTALLATION_ID to"
            " the former, by which its machines are known"
        )
