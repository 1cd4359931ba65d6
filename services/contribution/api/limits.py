"""How often machines may come: each by its own token, and those whom nobody knows by their address.

Many machines share one address (a gateway, a proxy), so who is known is never held back for what others do from there,
and what strangers send makes nobody who is known forgotten.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.contribution.domain import token_hash

MOST_KNOWN, MOST_REFUSED, MOST_ADDRESSES = 50_000, 10_000, 10_000
"""Beyond these the one that has not come for longest is forgotten: what is remembered takes 20 MB at most."""
TOKEN_BURST, TOKEN_EVERY_S = 30.0, 5.0
"""An agent comes every minute and after each command, a client every half minute and after each start."""
STRANGER_BURST, STRANGER_EVERY_S = 60.0, 1.0
LEARN_EVERY_S = 10.0
"""How often at most it is read whose tokens are known, while strangers have used up an address."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class _Buckets:
    def __init__(self, burst: float, every_s: float, most: int) -> None:
        self._burst, self._every_s, self._most = burst, every_s, most
        self._by_key: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, key: str, now: float) -> int:
        """Take one out of the key's bucket, filled up to now; else how many seconds until there is one."""
        bucket = self._of(key, now)
        if bucket.left < 1:
            return max(1, math.ceil((1 - bucket.left) * self._every_s))
        bucket.left -= 1
        return 0

    def put_back(self, key: str, now: float) -> None:
        """One that was taken was not owed."""
        bucket = self._of(key, now)
        bucket.left = min(self._burst, bucket.left + 1)

    def add(self, key: str, now: float) -> None:
        """Remember the key, if it is not yet."""
        if key not in self._by_key:
            self._of(key, now)

    def forget(self, key: str) -> None:
        self._by_key.pop(key, None)

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def __len__(self) -> int:
        return len(self._by_key)

    def _of(self, key: str, now: float) -> _Bucket:
        bucket = self._by_key.get(key)
        if bucket is None:
            bucket = self._by_key[key] = _Bucket(self._burst, now)
            if len(self._by_key) > self._most:
                self._by_key.popitem(last=False)
        self._by_key.move_to_end(key)
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) / self._every_s)
        bucket.at = now
        return bucket


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether somebody may come now."""

    wait_s: int = 0
    """How long they should stay away; 0: they may come."""
    is_known: bool | None = None
    """Whether their token was known when it last came; None: it has not come, or nobody could say."""


class Limits:
    """What this process remembers of who came; every replica counts for itself.

    Only tokens that are somebody's have buckets. Others count against their address as soon as they ask, so that many
    at once get in no more often than one after the other.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._known = _Buckets(TOKEN_BURST, TOKEN_EVERY_S, MOST_KNOWN)
        self._addresses = _Buckets(STRANGER_BURST, STRANGER_EVERY_S, MOST_ADDRESSES)
        self._refused: OrderedDict[str, None] = OrderedDict()
        self._learnt_at = -math.inf

    def ask(self, token: str, address: str) -> Verdict:
        """Whether whoever has this token may come from there now; each asking counts."""
        now, key = self._monotonic(), token_hash(token)
        if key in self._known:
            return Verdict(self._known.take(key, now), True)
        is_refused = False if key in self._refused else None
        return Verdict(self._addresses.take(_network(address), now), is_refused)

    def note(self, token: str, address: str, *, known: bool | None) -> None:
        """Remember whether the token, which was let in, is somebody's; None: nobody can say just now."""
        now, key = self._monotonic(), token_hash(token)
        if known is False:
            self._known.forget(key)
            self._refused[key] = None
            self._refused.move_to_end(key)
            if len(self._refused) > MOST_REFUSED:
                self._refused.popitem(last=False)
            return
        if key in self._known:
            return
        self._addresses.put_back(_network(address), now)
        if known:
            self._refused.pop(key, None)
            self._known.take(key, now)

    def may_learn(self) -> bool:
        """Whether it is time to read whose tokens are known; then it is not for a while."""
        now = self._monotonic()
        if now < self._learnt_at + LEARN_EVERY_S:
            return False
        self._learnt_at = now
        return True

    def learn(self, hashes: Iterable[str]) -> None:
        """These are hashes of tokens that are somebody's, though they have not come since this process began."""
        now = self._monotonic()
        for key in hashes:
            self._known.add(key, now)
            self._refused.pop(key, None)

    @property
    def remembered(self) -> tuple[int, int, int]:
        """How many known tokens, refused ones and addresses are remembered."""
        return len(self._known), len(self._refused), len(self._addresses)


def _network(address: str) -> str:
    """Who has one address of IPv6 has all of its /64."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)
