"""The credentials that a resource's row holds, and which of them is in use."""

from dataclasses import replace

from libs.providers.base import sealing_context
from services.registry.domain import Credential, Endpoint
from services.registry.models import Resource


def endpoint_of(resource: Resource) -> Endpoint:
    """Where the cloud is, and its first credential."""
    return Endpoint(
        provider=resource.provider,
        url=resource.url,
        identity=resource.identity,
        username=resource.username,
        sealed_secret=resource.sealed_secret,
        ca_pem=resource.ca_pem,
        thumbprint=resource.thumbprint,
        settings=resource.settings,
    )


def endpoint_in_use(resource: Resource) -> Endpoint:
    """Where and as whom the cloud is asked now."""
    first = endpoint_of(resource)
    if resource.alternate_since is None or resource.alternate_username is None:
        return first
    return as_whom(first, Credential(resource.alternate_username, resource.sealed_alternate))


def as_whom(endpoint: Endpoint, credential: Credential) -> Endpoint:
    """The same cloud, asked as somebody else."""
    return replace(endpoint, username=credential.username, sealed_secret=credential.sealed_secret)


def secret_context(known: Endpoint | Resource) -> bytes:
    """What the secrets of an endpoint are sealed for."""
    return sealing_context(known.url, known.ca_pem, known.thumbprint)


def is_other_login(known: Endpoint | Resource, endpoint: Endpoint) -> bool:
    """Whether the endpoint's credential, or where it is sent, is another than the known one's (of a row: its first)."""
    is_same_user = (known.username, known.sealed_secret) == (endpoint.username, endpoint.sealed_secret)
    return not is_same_user or secret_context(known) != secret_context(endpoint)


def set_alternate(resource: Resource, alternate: Credential | None) -> None:
    """Keep, replace or take away the alternate."""
    resource.alternate_username = alternate.username if alternate else None
    resource.sealed_alternate = alternate.sealed_secret if alternate else ""
    if alternate is None:
        forget_refusal(resource)


def forget_refusal(resource: Resource) -> None:
    """The first credential is in use, and nothing is held against it."""
    resource.alternate_since = resource.alternate_why = resource.first_try_at = None
