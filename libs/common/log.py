"""Structured logs: one JSON object a line, colours on a terminal; other libraries' too; secrets masked."""

import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

MASK = "***"

_SECRET_NAME = re.compile(
    r"(password|passwd|passphrase|pwd|secret|token|authorization|authenticator|cookie|credential"
    r"|(?:api|private|signing|sealing|account|access|encryption|session|weak|master|shared)[_-]?key)s?$",
    re.IGNORECASE,
)
_IN_TEXT: tuple[tuple[re.Pattern[str], str], ...] = (
    # the password of a URL's user part
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@?#]*):[^\s@/?#]+@", re.IGNORECASE), rf"\1:{MASK}@"),
    # ?token=..., password=..., also inside connection strings and reprs
    (
        re.compile(
            r"((?:password|passwd|secret|token|api_?key|authenticator)['\"]?\s*[=:]\s*['\"]?)(?!\s)[^\s&'\",;)}\]]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    # personal tokens, signed tokens, private keys
    (re.compile(r"\btides_([0-9a-f]{32})_[A-Za-z0-9_-]+"), rf"tides_\1_{MASK}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"), MASK),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL), MASK),
    # asyncpg's echo of a value that it cannot send
    (re.compile(r"(invalid input for query argument \$\d+: )[^\n]*"), rf"\1{MASK}"),
    # PostgreSQL's echo of a whole row
    (re.compile(r"Failing row contains \(.*?\)\.", re.DOTALL), f"Failing row contains ({MASK})."),
)
_MAY_HOLD_ONE = re.compile(
    r"://|[=:]|tides_|eyJ|bearer|basic|PRIVATE KEY|Failing row|invalid input", re.IGNORECASE
)
"""Without any of this none of the above is in a text: most are names and ids."""
_QUIET = ("uvicorn.access", "aiormq", "aio_pika", "asyncio", "alembic", "sqlalchemy.engine")


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Whether such a field holds a secret: `password`, `api_key`, `apiToken`; not `token_id`, not `key`."""
    return _SECRET_NAME.search(name) is not None


def mask_text(text: str) -> str:
    """The text without passwords of URLs, tokens and private keys in it."""
    if _MAY_HOLD_ONE.search(text) is None:
        return text
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def mask(value: Any) -> Any:
    """The value with every secret in it masked, however deep."""
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, Mapping):
        return {str(name): _mask_field(str(name), item) for name, item in value.items()}
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, Sequence | set | frozenset):
        return [mask(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return mask_text(f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value))


def _mask_field(name: str, value: Any) -> Any:
    return MASK if is_secret_name(name) and value is not None else mask(value)


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Structlog processor; the last one before the renderer, so that nothing passes it by."""
    return {name: _mask_field(name, item) for name, item in event.items()}


class _Handler(logging.StreamHandler[TextIO]):
    """Ours among the root's handlers, which may also be a test runner's."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._is_journal = _is_journal(stream)

    def format(self, record: logging.LogRecord) -> str:
        """Where systemd's journal reads, each line says how urgent it is, so that `journalctl -p err` finds it."""
        told = super().format(record)
        if not self._is_journal:
            return told
        urgency = next(number for level, number in _URGENCY if record.levelno >= level)
        return "\n".join(f"<{urgency}>{line}" for line in told.splitlines())


_URGENCY = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.NOTSET, 7),
)
"""Levels as syslog numbers them (sd-daemon(3)), the most urgent first."""


def _is_journal(stream: TextIO) -> bool:
    """Whether it is what systemd gave this process as its journal (`JOURNAL_STREAM`: device and inode)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _drop_colours(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event.pop("color_message", None)  # uvicorn says everything twice
    return event


def configure(level: str = "INFO", form: str = "json", stream: TextIO | None = None) -> None:
    """Send every log of the process through one masked, structured handler, in place of an earlier one.

    `form` is `json` or `console`; `stream` defaults to standard error: a command's output stays its own.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        # What nobody hears is dropped first: most of what is said of thousands of clusters is for who asks for it.
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _drop_colours,
                *_renderers(form, stream.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [*(other for other in root.handlers if not isinstance(other, _Handler)), handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _renderers(form: str, colours: bool) -> list[Processor]:
    # Exceptions become text before masking: a traceback can quote a URL. Never with local variables.
    text: list[Processor] = [structlog.processors.format_exc_info, mask_secrets]
    if form == "console":
        plain = structlog.dev.plain_traceback
        return [*text, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)]
    return [*text, structlog.processors.JSONRenderer(ensure_ascii=False, default=str)]
