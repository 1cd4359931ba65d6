"""How often machines may come: each by its own token, and those whom nobody knows by their address.

Many machines share one address (a gateway, a proxy), so who is known is never held back for what others do from there.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from services.contribution.domain import token_hash

MOST_TOKENS, MOST_ADDRESSES = 50_000, 10_000
"""Beyond these the one that has not come for longest is forgotten: what is remembered takes 20 MB at most."""
TOKEN_BURST, TOKEN_EVERY_S = 30.0, 5.0
"""An agent comes every minute and after each command, a client every half minute and after each start."""
STRANGER_BURST, STRANGER_EVERY_S = 60.0, 1.0


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float
    known: bool | None = None
    """Whether whoever came last with it was known; None: nobody has been let in or turned away yet."""


class _Buckets:
    def __init__(self, burst: float, every_s: float, most: int) -> None:
        self._burst, self._every_s, self._most = burst, every_s, most
        self._by_key: OrderedDict[str, _Bucket] = OrderedDict()

    def of(self, key: str, now: float) -> _Bucket:
        """The bucket of a key, filled up to now."""
        bucket = self._by_key.get(key)
        if bucket is None:
            bucket = self._by_key[key] = _Bucket(self._burst, now)
            if len(self._by_key) > self._most:
                self._by_key.popitem(last=False)
        self._by_key.move_to_end(key)
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) / self._every_s)
        bucket.at = now
        return bucket

    def wait_s(self, bucket: _Bucket) -> int:
        """How long until there is one more in it; 0: there is."""
        return 0 if bucket.left >= 1 else max(1, math.ceil((1 - bucket.left) * self._every_s))

    def __len__(self) -> int:
        return len(self._by_key)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether somebody may come now."""

    wait_s: int = 0
    """How long they should stay away; 0: they may come."""
    is_known: bool | None = None
    """Whether their token was known when it last came; None: it has not come, or nobody could say."""


class Limits:
    """What this process remembers of who came; every replica counts for itself."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._tokens = _Buckets(TOKEN_BURST, TOKEN_EVERY_S, MOST_TOKENS)
        self._addresses = _Buckets(STRANGER_BURST, STRANGER_EVERY_S, MOST_ADDRESSES)

    def ask(self, token: str, address: str) -> Verdict:
        """Whether whoever has this token may come from there now; each asking counts."""
        now = self._monotonic()
        mine = self._tokens.of(token_hash(token), now)
        wait_s = self._tokens.wait_s(mine)
        if not wait_s:
            mine.left -= 1
        if mine.known is not True:
            wait_s = max(wait_s, self._addresses.wait_s(self._addresses.of(_network(address), now)))
        return Verdict(wait_s, mine.known)

    def note(self, token: str, address: str, *, known: bool) -> None:
        """Remember whether the token was somebody's. One that is nobody's counts against its address."""
        now = self._monotonic()
        self._tokens.of(token_hash(token), now).known = known
        if not known:
            there = self._addresses.of(_network(address), now)
            there.left = max(0.0, there.left - 1)

    @property
    def remembered(self) -> tuple[int, int]:
        """How many tokens and addresses are remembered."""
        return len(self._tokens), len(self._addresses)


def _network(address: str) -> str:
    """Who has one address of IPv6 has all of its /64."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)
