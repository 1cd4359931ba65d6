"""Checking what was given, and asking the cloud itself. No transaction is open meanwhile."""

import asyncio
import contextlib
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from cryptography import x509
from pydantic import BaseModel, SecretStr
from pydantic import ValidationError as NotValid

from libs.common.errors import Problem, invalid
from libs.common.secrets import Unsealable, Vault
from libs.common.service import Runtime
from libs.providers.base import (
    Cause,
    Connection,
    Driver,
    Provider,
    ProviderError,
    Rejected,
    Unavailable,
    Validation,
    sealing_context,
)
from libs.providers.registry import UnknownDriver, driver_names, load_driver
from services.registry.domain import (
    Endpoint,
    NotAcceptable,
    Seen,
    check_text,
    check_thumbprint,
    check_url,
    instance_url,
    seen_thumbprint,
)

log = structlog.get_logger(__name__)

WITHIN_S = 30.0
CLOSE_WITHIN_S = 5.0
LONGEST_PASSWORD = 4096
LONGEST_CA = 256 * 1024
UNSAID = UUID(int=0)


def check_name(name: str) -> str:
    """A resource's name. Raises a 422 Problem."""
    return _check_word("name", name)


def check_site(name: str) -> str:
    """A site's name, which is part of an address. Raises a 422 Problem."""
    if "/" in name:
        raise invalid("site", "The site has a slash in its name.", "Give a name without one.")
    return _check_word("site", name)


def _check_word(field: str, text: str) -> str:
    try:
        return check_text(field, text, 100)
    except NotAcceptable as error:
        raise invalid(error.field, error.detail, error.remedy) from None


async def check_endpoint(
    provider: str, given: dict[str, Any], password: SecretStr | None, sealed: str, vault: Vault
) -> Endpoint:
    """The endpoint that was given (url, username, ca_pem, thumbprint, settings), sealed with the password.

    Without a password the secret stays as it was `sealed`. Raises a 422 Problem that names the field.
    """
    driver = await _driver(provider)
    try:
        url = check_url(given["url"])
        username = check_text("username", given["username"], 255)
        thumbprint = check_thumbprint(given["thumbprint"])
    except NotAcceptable as error:
        raise invalid(error.field, error.detail, error.remedy) from None
    ca_pem = _check_ca(given["ca_pem"])
    settings = _check_settings(driver, given["settings"])
    if password is not None:
        sealed = vault.seal(check_password("password", password), sealing_context(url, ca_pem, thumbprint))
    return Endpoint(
        provider=provider,
        url=url,
        identity=_identify(driver, url, settings),
        username=username,
        sealed_secret=sealed,
        ca_pem=ca_pem,
        thumbprint=thumbprint,
        settings=settings.model_dump(mode="json", exclude_unset=True),
    )


def connect_to(endpoint: Endpoint, resource_id: UUID, installation_id: UUID) -> Connection:
    """How a driver reaches the endpoint."""
    return Connection(
        resource_id=resource_id,
        installation_id=installation_id,
        url=endpoint.url,
        username=endpoint.username,
        sealed_secret=endpoint.sealed_secret,
        ca_pem=endpoint.ca_pem,
        thumbprint=endpoint.thumbprint,
        settings=endpoint.settings,
    )


async def ask_cloud(endpoint: Endpoint, resource_id: UUID | None, runtime: Runtime) -> Seen:
    """Log in and validate, within 30 s. Raises ProviderError whatever goes wrong."""
    installation_id = runtime.settings.installation_id or UNSAID
    connection = connect_to(endpoint, resource_id or UNSAID, installation_id)
    driver = await _driver(endpoint.provider)
    try:
        async with asyncio.timeout(WITHIN_S):
            provider = await driver.open(connection, runtime.vault, runtime.clock)
            try:
                found, capabilities = await provider.validate(), provider.capabilities
            finally:
                await close(provider)
    except ProviderError:
        raise
    except Unsealable as error:
        raise Rejected(Cause.AUTH, str(error)) from None
    except TimeoutError:
        raise Unavailable(Cause.TIMEOUT, f"no answer within {WITHIN_S:.0f} s") from None
    except Exception as error:
        log.exception("resource.validation_failed", provider=endpoint.provider)
        raise Unavailable(Cause.UNKNOWN, f"the driver failed: {type(error).__name__}") from error
    return Seen(
        instance_identity=_instance_identity(driver, endpoint, found.instance_id),
        validation=_facts(found, runtime.clock.now()),
        capabilities=sorted(capability.value for capability in capabilities),
    )


async def close(provider: Provider) -> None:
    """End a session; a cloud that does not answer is left alone after a few seconds."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await provider.aclose()


def failed_validation(error: ProviderError, now: datetime) -> dict[str, Any]:
    """What is remembered of a validation that failed."""
    return {
        "at": now.isoformat(),
        "ok": False,
        "error": {"cause": error.cause.value, "detail": error.detail[:1000]},
    }


def explain(error: ProviderError) -> Problem:
    """A cloud's refusal as an answer: which field to look at, and what to do."""
    field, said, remedy = _EXPLAINED.get(
        error.cause, ("url", "The cloud could not be validated", "Look at its log.")
    )
    if error.cause is Cause.TLS and (thumbprint := seen_thumbprint(error.detail)):
        remedy = (
            f"If {thumbprint} is the fingerprint of your cloud's certificate, give it as `thumbprint`; "
            "or give the authority that signed it as `ca_pem`."
        )
    return invalid(field, f"{said}: {error.detail[:1000]}", remedy)


_EXPLAINED = {
    Cause.AUTH: ("password", "The cloud refused the login", "Check user name and password."),
    Cause.PERMISSION: (
        "username", "The account may not look at this cloud", "Give it at least a read-only role.",
    ),
    Cause.TLS: (
        "thumbprint", "The certificate is not trusted",
        "Give the issuing authority as `ca_pem`, or the certificate's fingerprint as `thumbprint`.",
    ),
    Cause.UNREACHABLE: ("url", "The cloud cannot be reached", "Check address, port, name service and firewall."),
    Cause.TIMEOUT: ("url", "The cloud did not answer in time", "Check address and firewall, or try again later."),
    Cause.THROTTLED: ("url", "The cloud is busy", "Try again in a minute."),
    Cause.NOT_FOUND: ("settings", "The scope does not exist in this cloud", "Check the names in `settings`."),
    Cause.INVALID: ("settings", "The cloud does not take this", "Check `url` and `settings`."),
}  # fmt: skip


async def _driver(name: str) -> Driver:
    try:
        return await load_driver(name)
    except UnknownDriver:
        raise invalid(
            "provider", "No such driver is installed.", f"Installed are: {', '.join(driver_names())}."
        ) from None


def check_password(field: str, password: SecretStr) -> str:
    """A password that can be one. Raises a 422 Problem that does not quote it."""
    secret = password.get_secret_value()
    if not 1 <= len(secret) <= LONGEST_PASSWORD:
        raise invalid(field, f"The password must have 1 to {LONGEST_PASSWORD} characters.")
    return secret


def _check_ca(pem: str | None) -> str | None:
    pem = (pem or "").strip()
    if not pem:
        return None
    remedy = "Give the certificates between `-----BEGIN CERTIFICATE-----` and `-----END CERTIFICATE-----`."
    if "PRIVATE KEY" in pem:
        raise invalid(
            "ca_pem", "This holds a private key.", f"{remedy} The key is nobody's business, ours neither."
        )
    if len(pem) > LONGEST_CA:
        raise invalid("ca_pem", f"The certificates are longer than {LONGEST_CA // 1024} KiB.", remedy)
    try:
        x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise invalid("ca_pem", "This is no certificate in PEM form.", remedy) from None
    return pem


def _check_settings(driver: Driver, settings: dict[str, Any]) -> BaseModel:
    try:
        return driver.settings.model_validate(settings)
    except NotValid as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        field = ".".join(["settings", *(str(part)[:64] for part in first["loc"])])
        raise invalid(field, first["msg"].removeprefix("Value error, ")[:200]) from None


def _identify(driver: Driver, url: str, settings: BaseModel) -> str:
    try:
        return f"{driver.name}/{driver.identify(url, settings)}"
    except ValueError as error:
        raise invalid("url", str(error)[:300], "Give an address that this driver can use.") from None


def _instance_identity(driver: Driver, endpoint: Endpoint, instance_id: str) -> str | None:
    url = instance_url(endpoint.url, instance_id)
    if url is None:
        return None
    try:
        return f"{driver.name}/{driver.identify(url, driver.settings.model_validate(endpoint.settings))}"
    except ValueError:
        return None


def _facts(found: Validation, now: datetime) -> dict[str, Any]:
    return {
        "at": now.isoformat(),
        "ok": True,
        "product": found.product,
        "api_version": found.api_version,
        "instance_id": found.instance_id,
        "clusters": [asdict(cluster) for cluster in found.clusters],
        "missing": [asdict(privilege) for privilege in found.missing],
        "warnings": list(found.warnings),
        "blockers": [asdict(blocker) for blocker in found.blockers],
    }
