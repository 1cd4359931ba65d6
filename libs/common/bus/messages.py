"""Between events and messages: CloudEvents 1.0 attributes outside, the event's own JSON inside."""

from collections.abc import Callable, Mapping
from operator import attrgetter

from pydantic import ValidationError

from libs.common.bus.base import Hopeless, Message
from libs.common.contracts.base import Event
from libs.common.contracts.catalogue import BY_KEY
from libs.common.contracts.lenient import Strange, read
from libs.common.tracing import carried

SPEC_VERSION = "1.0"
REPLAYED = "ce-replayed"
"""A CloudEvents extension, on the answers to who asked for states: they are news to who came late, to others not."""


class UnreadableMessage(Hopeless):
    """The key is not in the catalogue, or the body is not that event. Names fields, never their values."""


def to_message(event: Event, source: str) -> Message:
    """The message of an event; `source` is a URI reference such as `/tides/monitor`."""
    headers = {
        "ce-specversion": SPEC_VERSION,
        "ce-id": str(event.id),
        "ce-source": source,
        "ce-type": event.key,
        "ce-time": event.at.isoformat(),
        "ce-subject": event.subject,
        **carried(),
    }
    public_key = public_key_of(event.key, headers)
    return Message(str(event.id), event.key, event.encode(), headers, public_key)


def public_key_of(key: str, headers: Mapping[str, str]) -> str | None:
    """The routing key on the public exchange, where it is not the event's own: a project's facts by their project."""
    entry = BY_KEY.get(key)
    address = key if entry is None else entry.public_address
    return None if address == key else address.format(project_id=headers["ce-subject"])


def decode(message: Message, note: Callable[[Strange], None] = lambda strange: None) -> Event:
    """The event in a message, by its key; `note` hears of each word that is newer than this program.

    Raises UnreadableMessage.
    """
    entry = BY_KEY.get(message.key)
    if entry is None:
        raise UnreadableMessage(f"no event {message.key} in the catalogue (message {message.id})")
    try:
        event, unknown = read(entry.event, message.body)
    except ValidationError as error:
        raise UnreadableMessage(f"message {message.id} is not {message.key} ({_faults(error)})") from None
    for strange in sorted(unknown, key=attrgetter("field", "word")):
        note(strange)
    return event


def _faults(error: ValidationError) -> str:
    details = error.errors(include_input=False, include_url=False)
    return ", ".join(f"{'.'.join(map(str, detail['loc'])) or 'body'}: {detail['type']}" for detail in details)
