"""What every service may say about itself: that it came late, and which states it wants to hear again."""

from typing import ClassVar

from libs.common.contracts.base import Event


class StatesAsked(Event):
    """A service asks for the states that it hears; the answers go to its own queues and to nobody else's."""

    key: ClassVar[str] = "states.asked.v1"

    asker: str
    """The service's name: the answers to `key` go to the queue `<asker>.<key>`."""
    keys: tuple[str, ...]
    """Keys of state events; who publishes none of them has nothing to say."""

    @property
    def subject(self) -> str:
        return self.asker
