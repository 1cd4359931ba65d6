"""Settings of a process: environment variables `TIDES_*`, or files named by `TIDES_*_FILE` for secrets."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from libs.common.log import MASK, mask_text
from libs.common.secrets import Vault, parse_keys

PREFIX = "TIDES_"
_REMEDIES = {
    "database_url": "give postgresql://user:password@host:5432/tides, or none for the embedded server",
    "bus_url": "give amqp://user:password@host:5672/ or postgresql://..., or leave it out",
    "sealing_keys": "give id:base64 of 32 bytes, newest last, separated by commas; `tides keys` makes one",
    "signing_key": "give an Ed25519 private key as JWK or PEM; `tides keys` makes one",
    "installation_id": "give a UUID, or leave it out",
    "port": "give a number from 0 to 65535",
    "developer_mode": "give true or false",
    "log_level": "give DEBUG, INFO, WARNING or ERROR",
    "log_format": "give json or console",
}


class InvalidSettings(Exception):
    """One line for each wrong variable, with its remedy. Holds no value of a secret."""


def _default_data_dir() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "tides"


class Settings(BaseSettings):
    """All that a process is told from outside. `load_settings` builds it and explains what is wrong."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    database_url: SecretStr | None = None
    """PostgreSQL; None: the embedded server in `data_dir`. May hold a password; read it as `database_dsn`."""
    bus_url: SecretStr | None = None
    """RabbitMQ or PostgreSQL; None: the database is the bus."""
    sealing_keys: SecretStr = SecretStr("")
    """`id:base64,...`, newest last."""
    signing_key: SecretStr | None = None
    """Ed25519 private JWK or PEM; identity's alone."""
    verify_keys: str = ""
    """Public JWK set (JSON) or PEM, by which every service verifies access tokens."""
    bootstrap_admin_token: SecretStr | None = None
    """A personal token (`tides_<32 hex digits>_<secret>`) for the first administrator."""
    installation_id: UUID | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    developer_mode: bool = False
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"
    beat_floor_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """No beat runs more often than this."""
    jitter: float = Field(default=1.0, ge=0, le=1)
    """How much of the usual scatter beats get; 0 for runs that repeat exactly."""
    max_body_bytes: int = Field(default=1_048_576, ge=1024)
    sample_ttl_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """How long a sample waits for workload before it is too old to judge by."""
    pool_size: int = Field(default=5, ge=1, le=100)
    boinc_signing_key: str = ""
    """The public text of the account manager's key, as `tides boinc keygen` printed it; empty: there is no manager."""
    boinc_url: str = ""
    """Where machines reach the account manager: https, a dot in the host, `/boinc/` at the end."""
    boinc_local_projects: str = ""
    """Hosts and networks, separated by commas, where projects are asked though they are this machine or its segment."""
    data_dir: Path = Field(default_factory=_default_data_dir)

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        if url and not url.get_secret_value().startswith(
            ("postgresql://", "postgres://", "postgresql+asyncpg://")
        ):
            raise ValueError("not a PostgreSQL URL")
        return url

    @field_validator("bus_url")
    @classmethod
    def _known_bus(cls, url: SecretStr | None) -> SecretStr | None:
        if url and not url.get_secret_value().startswith(
            ("amqp://", "amqps://", "postgresql://", "postgres://")
        ):
            raise ValueError("neither a RabbitMQ nor a PostgreSQL URL")
        return url

    @field_validator("sealing_keys")
    @classmethod
    def _readable_keys(cls, keys: SecretStr) -> SecretStr:
        parsed = parse_keys(keys.get_secret_value())
        if parsed:
            Vault(parsed)
        return keys

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, level: Any) -> Any:
        return level.upper() if isinstance(level, str) else level

    @property
    def database_dsn(self) -> str:
        """The database's URL password and all. Raises InvalidSettings when there is none."""
        if self.database_url is None:
            raise InvalidSettings(f"TIDES_DATABASE_URL is not set; {_REMEDIES['database_url']}")
        return self.database_url.get_secret_value()

    @property
    def bus_dsn(self) -> str:
        """Where the bus really is, with its password, for the driver alone."""
        return self.bus_url.get_secret_value() if self.bus_url else self.database_dsn

    def vault(self) -> Vault:
        """The sealing keys as a vault. Raises ValueError when there are none."""
        return Vault(parse_keys(self.sealing_keys.get_secret_value()))

    def describe(self) -> list["Setting"]:
        """Every setting as a person may see it: secrets masked, passwords inside URLs too."""
        return [
            Setting(
                variable_of(name),
                _shown(getattr(self, name)),
                "set" if name in self.model_fields_set else "default",
            )
            for name in type(self).model_fields
        ]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code wins over the environment; no dotenv file is ever read by surprise."""
        return init_settings, _Environment(settings_cls)


class _Environment(PydanticBaseSettingsSource):
    """`TIDES_X`, or the content of the file that `TIDES_X_FILE` names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return _from_environment(variable_of(field_name)), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: _from_environment(variable_of(name)) for name in self.settings_cls.model_fields}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of `tides settings`."""

    name: str
    value: str
    source: str


def variable_of(field: str) -> str:
    """The environment variable of a field."""
    return f"{PREFIX}{field.upper()}"


def load_settings(**overrides: Any) -> Settings:
    """Read `TIDES_*` and `TIDES_*_FILE`; overrides win. Raises InvalidSettings with remedies."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        wrong = [_explain(str(item["loc"][0]), item["msg"]) for item in error.errors(include_input=False)]
        raise InvalidSettings("\n".join(wrong)) from None


def _from_environment(variable: str) -> str | None:
    value, file = os.environ.get(variable), os.environ.get(f"{variable}_FILE")
    if file is None:
        return value or None
    if value:
        raise InvalidSettings(f"{variable} and {variable}_FILE are both set: keep one of them")
    try:
        return Path(file).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InvalidSettings(f"{variable}_FILE: {reason}: name a file this process can read") from None


def _explain(field: str, message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix(f"{variable_of(field)}: ")
    remedy = _REMEDIES.get(field)
    line = f"{variable_of(field)}: {message[:1].lower()}{message[1:]}"
    return f"{line}; {remedy}" if remedy else line


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        return mask_text(secret) if "://" in secret else MASK if secret else ""
    return "" if value is None else mask_text(str(value))
