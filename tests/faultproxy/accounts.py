"""Accounts beside vcsim's only one: who may log in with which password, and how often each tried."""

from collections import Counter

from tests.faultproxy.rules import SoapFault
from tests.faultproxy.texts import first
from tools.parts.vcsim import PASSWORD, USERNAME

REFUSED = SoapFault("InvalidLogin", "Cannot complete login due to an incorrect user name or password.")


class Accounts:
    """vcsim's own account, and others that are it under another name."""

    def __init__(self) -> None:
        self.passwords = {USERNAME: PASSWORD}
        self.locked: set[str] = set()
        """Accounts that are refused, whatever the password; a vCenter does not say why."""
        self.tried: Counter[str] = Counter()
        """Logins by user name, those that were refused too."""

    def refuse(self, method: str, body: str) -> SoapFault | None:
        """The fault for a login that is not to be."""
        if method != "Login":
            return None
        name, password = _name(body), first(r"<password[^>]*>([^<]*)</password>", body) or ""
        self.tried[name] += 1
        return REFUSED if name in self.locked or self.passwords.get(name) != password else None

    def rename(self, method: str, body: bytes) -> bytes:
        """The call as vcsim knows it."""
        if method != "Login":
            return body
        text, name = body.decode(), _name(body.decode())
        as_known = text.replace(f">{name}<", f">{USERNAME}<")
        return as_known.replace(f">{self.passwords[name]}<", f">{PASSWORD}<").encode()


def _name(body: str) -> str:
    return first(r"<userName[^>]*>([^<]*)</userName>", body) or ""
