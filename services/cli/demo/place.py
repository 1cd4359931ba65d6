"""Where the demo keeps itself: keys, the cloud, its password, and how late it is in there."""

import secrets
import socket
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import SecretStr

from libs.common.clock import Clock, ScaledClock, WallClock
from libs.common.settings import InvalidSettings, Settings, load_settings
from services.cli.keep import keep

_AHEAD_S = 5.0
"""A demo that is killed may have gone on for so long after it last wrote down its time."""


class Place:
    """A folder of the demo's own. Nothing in it is readable by others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()
        self.is_new = not (self.folder / "cloud.json").exists()
        self.kept = keep(self.folder)
        self.token_file = self.folder / "admin-token"
        _write(self.token_file, self.kept.admin_token)

    @property
    def cloud_url(self) -> str:
        """The simulated cloud, in a file."""
        return f"sim://{self.folder / 'cloud.json'}"

    def cloud_password(self) -> str:
        """Chosen when the cloud is made."""
        path = self.folder / "cloud-password"
        if not path.exists():
            _write(path, secrets.token_urlsafe(24))
        return path.read_text(encoding="utf-8")

    def settings(self, speed: float) -> Settings:
        """Everything embedded and of this folder, whatever the environment names; beats keep to real time."""
        mine = load_settings()
        return load_settings(
            data_dir=self.folder,
            database_url=None,
            bus_url=None,
            sealing_keys=SecretStr(self.kept.sealing_keys),
            signing_key=SecretStr(self.kept.signing_key),
            verify_keys=self.kept.verify_keys,
            bootstrap_admin_token=SecretStr(self.kept.admin_token),
            installation_id=self.kept.installation_id,
            port=_free_port(mine.host, mine.port),
            beat_floor_s=0.0 if speed <= 5 else speed / 2,
        )

    def clock(self, speed: float) -> Clock:
        """Goes on from where it was: never back, and never behind real time."""
        now = WallClock().now()
        start = max(now, self._kept_time() or now)
        return WallClock() if speed == 1.0 and start == now else ScaledClock(speed, start)

    def keep_time(self, now: datetime, speed: float, *, is_last: bool = False) -> None:
        """Write down how late it is; while it runs, a little ahead."""
        ahead = timedelta(0) if is_last else timedelta(seconds=_AHEAD_S * speed)
        _write(self.folder / "time", (now + ahead).isoformat())

    def _kept_time(self) -> datetime | None:
        try:
            return datetime.fromisoformat((self.folder / "time").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


def _free_port(host: str, wanted: int) -> int:
    """The port wanted, or 0 (any) where somebody has it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except OSError:
            return 0
    return wanted


def _write(path: Path, text: str) -> None:
    try:
        fresh = path.with_name(f".{path.name}.new")
        fresh.touch(mode=0o600)
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise InvalidSettings(
            f"--dir: {path}: {error.strerror}; name a folder that this user can write"
        ) from None
