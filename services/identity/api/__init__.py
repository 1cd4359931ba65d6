"""Identity over HTTP."""

from fastapi import APIRouter

from services.identity.api import audit, logins, organisations, tokens, users
from services.identity.api.door import Door

__all__ = ["ROUTERS", "Door"]

ROUTERS: tuple[APIRouter, ...] = (
    logins.router,
    tokens.router,
    users.router,
    organisations.router,
    audit.router,
)
