"""Sessions that end when nobody expects it: what a client is told then, until it has logged in again."""

import random
import re

from tests.faultproxy.rules import SoapFault

_NEEDS_NONE = frozenset({"GET", "Login", "RetrieveServiceContent"})
NOT_AUTHENTICATED = SoapFault("NotAuthenticated", "The session is not authenticated.")


class Sessions:
    """Which cookies are still good."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._ended: set[str] = set()
        self.expired = 0
        """Sessions that chance has ended."""
        self.most = 0
        """The most that there were at once."""

    @property
    def live(self) -> set[str]:
        """Sessions that were neither ended nor left."""
        return self._known - self._ended

    def begin(self, cookie: str) -> None:
        """Somebody has logged in."""
        if (key := _key(cookie)) is not None:
            self._known.add(key)
            self.most = max(self.most, len(self.live))

    def leave(self, cookie: str) -> None:
        """Somebody has logged out."""
        if (key := _key(cookie)) is not None:
            self._ended.add(key)

    def is_full(self, method: str, cookie: str, most: int | None) -> bool:
        """Whether this call wants a session more than there may be."""
        wants = method in ("RetrieveServiceContent", "Login") and _key(cookie) not in self.live
        return wants and most is not None and len(self.live) >= most

    def refuse(
        self, method: str, cookie: str, chance: random.Random | None, share: float
    ) -> SoapFault | None:
        """The fault for a call of a session that has ended, or that ends just now."""
        key = _key(cookie)
        if method in _NEEDS_NONE or key is None:
            return None
        if key not in self._ended and chance is not None and chance.random() < share:
            self._ended.add(key)
            self.expired += 1
        if key in self._ended:
            return NOT_AUTHENTICATED
        return None

    def end_all(self) -> None:
        """Every session that was ever seen is over, with its collectors and views."""
        self._ended |= self._known


def _key(cookie: str) -> str | None:
    found = re.search(r'vmware_soap_session="?([^";]+)', cookie)
    return found[1] if found else None
