"""The alternate credential of a resource: checked, tried and measured against the first one before it is kept."""

from pydantic import BaseModel, ConfigDict, SecretStr

from libs.common.errors import Problem, invalid
from libs.common.service import Runtime
from libs.providers.base import ProviderError
from services.registry.api.probe import ask_cloud, check_password, explain
from services.registry.domain import Credential, Endpoint, NotAcceptable, Seen, check_text, lacks
from services.registry.models import Resource
from services.registry.usecases.credentials import as_whom, secret_context

USERNAME, PASSWORD = "alternate.username", "alternate.password"


class AlternateGiven(BaseModel):
    """Another account of the same cloud; the password is sealed on entry and never shown again."""

    model_config = ConfigDict(extra="forbid")

    username: str
    password: SecretStr


def check_alternate(given: AlternateGiven, endpoint: Endpoint, runtime: Runtime) -> Credential:
    """The credential, sealed for the endpoint. Raises a 422 Problem that names the field."""
    try:
        username = check_text(USERNAME, given.username, 255)
    except NotAcceptable as error:
        raise invalid(error.field, error.detail, error.remedy) from None
    if username.casefold() == endpoint.username.casefold():
        raise invalid(
            USERNAME,
            "The alternate is the same account as the first.",
            "Give another account: what locks one would lock both.",
        )
    secret = check_password(PASSWORD, given.password)
    return Credential(username, runtime.vault.seal(secret, secret_context(endpoint)))


def refuse_unfit(known: Resource, endpoint: Endpoint) -> None:
    """Raise 422 where the alternate that is kept is no alternate of the resource as it will be.

    It is sealed for another address then, or is what has become the first account.
    """
    if known.alternate_username is None:
        return
    is_same = endpoint.username.casefold() == known.alternate_username.casefold()
    if is_same and endpoint.username != known.username:
        raise invalid(
            "username",
            "The first account would be the same as the alternate: what locks one would lock both.",
            "Give another account, or send `alternate` with this change; null takes it away.",
        )
    if secret_context(endpoint) != secret_context(known):
        raise invalid(
            "alternate",
            "Another address, authority or thumbprint needs the alternate's password again.",
            "Send `alternate` with this change; null takes it away.",
        )


async def try_alternate(
    alternate: Credential, endpoint: Endpoint, known: Resource, first: Seen | None, runtime: Runtime
) -> None:
    """Log in with it, once, and look. Raises 422 where it is refused, or can do or see less than the first one.

    `first` is what was just found with the first one; None: what was found last counts.
    """
    try:
        seen = await ask_cloud(as_whom(endpoint, alternate), known.id, runtime)
    except ProviderError as error:
        raise _explain(error) from None
    if missing := lacks(seen.validation, first.validation if first else known.validation):
        raise invalid(
            USERNAME,
            f"The alternate account lacks what the first one has: {', '.join(missing)}.",
            "Give it the same role on the same objects.",
        )


def _explain(error: ProviderError) -> Problem:
    problem = explain(error)
    if problem.field in ("username", "password"):
        problem.field = f"alternate.{problem.field}"
    return problem
