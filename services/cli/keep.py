"""What an installation keeps on disk at its first start: fresh keys, its identity, the first administrator's token."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from pydantic import SecretStr

from libs.common import personal_tokens
from libs.common.settings import InvalidSettings, Settings

FILE = "installation.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """Secrets of an installation on embedded defaults; never a default value, readable by its owner alone."""

    installation_id: str
    sealing_keys: str = field(repr=False)
    signing_key: str = field(repr=False)
    verify_keys: str
    admin_token: str = field(repr=False)


def fresh() -> Kept:
    """New keys, a new identity, a new token."""
    from libs.common.auth import generate_signing_keys
    from libs.common.secrets import fresh_key

    private, public = generate_signing_keys()
    return Kept(str(uuid4()), f"k1:{fresh_key()}", private, public, personal_tokens.fresh())


def keep(data_dir: Path) -> Kept:
    """What `data_dir` keeps, made at the first call. Two processes at once agree. Raises InvalidSettings."""
    path = data_dir / FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write_once(path, json.dumps(asdict(fresh())))
        return Kept(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "damaged"
        raise InvalidSettings(
            f"TIDES_DATA_DIR: {path}: {reason}; name a folder that this user can write"
        ) from None


def _write_once(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(text, encoding="utf-8")
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def complete(settings: Settings) -> Settings:
    """The settings with whatever is not set taken from what the installation keeps. Raises InvalidSettings."""
    if settings.sealing_keys.get_secret_value() and settings.verify_keys:
        if settings.installation_id is None:
            raise InvalidSettings(
                "TIDES_INSTALLATION_ID is not set; give every process of an installation the same UUID: it marks"
                " the machines that are ours"
            )
        return settings
    kept = keep(settings.data_dir)
    found: dict[str, Any] = {
        "installation_id": UUID(kept.installation_id),
        "sealing_keys": SecretStr(kept.sealing_keys),
        "signing_key": SecretStr(kept.signing_key),
        "verify_keys": kept.verify_keys,
        "bootstrap_admin_token": SecretStr(kept.admin_token),
    }
    missing = {name: value for name, value in found.items() if not _is_set(settings, name)}
    return settings.model_copy(update=missing)


def _is_set(settings: Settings, name: str) -> bool:
    value = getattr(settings, name)
    return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)
