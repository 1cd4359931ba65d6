"""Checks over REST: who answers, whether it is ready, and what is known of each resource."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from importlib.metadata import version as installed_version
from typing import Any

import aiohttp

from services.cli.client import SERVICE_OF, Failed, Target, open_client
from services.cli.doctor.findings import Check, Finding, Grade, fail, ok, warn
from services.cli.doctor.stores import compare_clocks

ASKED_WITHIN_S = 6.0
_REMEDIES = {
    "auth": "Give the account's password again (PATCH /v1/resources/{id}), then `tides resource validate`.",
    "permission": "Give the account the privileges that `tides vsphere role` prints.",
    "tls": "Give the certificate's authority or thumbprint anew: it may have been renewed.",
    "unreachable": "Look at the cloud, and at the network between it and the monitors.",
    "timeout": "The cloud is slow: look at its load, and at the network between it and the monitors.",
    "throttled": "The cloud asks for fewer calls: make the interval longer.",
}
_ANY = "Look at the cloud and at the monitors' log (`monitor.round_failed`)."


def checks(target: Target) -> dict[str, Check]:
    """Every check over REST, by name."""
    urls = {f"service {name}": url for name, url in target.by_service.items()}
    if set(SERVICE_OF.values()) - target.by_service.keys():
        urls["services"] = target.url  # where all have an address of their own, nobody is asked there
    found: dict[str, Check] = {name: partial(look_at_process, name, url) for name, url in urls.items()}
    return {
        **found,
        "identity": partial(look_at_identity, target),
        "resources": partial(look_at_resources, target),
    }


async def look_at_process(check: str, url: str) -> list[Finding]:
    """Whether a process is ready, and of which version it is."""
    timeout = aiohttp.ClientTimeout(total=ASKED_WITHIN_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(f"{url.rstrip('/')}/readyz") as answer,
        ):
            told: Mapping[str, Any] = await answer.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        remedy = "Start `tides run` there, or set TIDES_URL (and TIDES_URL_<SERVICE>) to where it runs."
        return [fail(check, f"{url}: no answer ({type(error).__name__})", remedy)]
    missing = "; ".join(str(part) for part in told.get("missing", ()))
    if answer.status != 200 or missing:
        remedy = "It waits for what is missing and goes on by itself once that is there."
        return [fail(check, f"{url}: {told.get('status', answer.status)}: {missing}", remedy)]
    ours, theirs = installed_version("tides"), told.get("version", "unknown")
    parts = ", ".join(told.get("parts", ()))
    if theirs != ours:
        return [
            warn(check, f"{url}: ready, version {theirs}; this is {ours}", "Upgrade the older of the two.")
        ]
    return [ok(check, f"{url}: ready, version {theirs} ({parts})")]


async def look_at_identity(target: Target) -> list[Finding]:
    """Whether the token is taken."""
    async with open_client(target) as client:
        try:
            who = await client.call("GET", "/v1/me")
        except Failed as error:
            return [
                fail("identity", str(error), "Give a token that is valid, and look whether identity runs.")
            ]
    return [ok("identity", f"answers; the token is {who.get('name', 'valid')}'s")]


async def look_at_resources(target: Target) -> list[Finding]:
    """Every resource as registry, monitor and workload know it."""
    async with open_client(target) as client:
        try:
            resources, watched, clusters = await asyncio.gather(
                *(client.pages(path) for path in ("/v1/resources", "/v1/monitors", "/v1/clusters"))
            )
        except Failed as error:
            return [fail("resources", str(error), "Mend what stands above, then ask again.")]
    monitors = {one["resource_id"]: one for one in watched}
    acting = {one["resource_id"]: one["cloud"] for one in clusters if "cloud" in one}
    if not resources:
        return [ok("resources", "none is registered")]
    return [
        finding
        for resource in resources
        for finding in judge(resource, monitors.get(resource["id"]), acting.get(resource["id"]))
    ]


def judge(
    resource: Mapping[str, Any], watched: Mapping[str, Any] | None, acting: Mapping[str, Any] | None
) -> list[Finding]:
    """What is to be said of one resource."""
    check = f"resource {resource['name']}"
    found = [*_health(check, resource, watched, acting), *_account(check, resource)]
    if watched is not None:
        offset = timedelta(seconds=watched["clock_offset_s"])
        found.append(compare_clocks(f"clock of {resource['name']}", offset))
    if all(finding.grade is Grade.OK for finding in found):
        found.insert(0, ok(check, f"{resource['mode']}: sampled and well"))
    return found


def _health(
    check: str,
    resource: Mapping[str, Any],
    watched: Mapping[str, Any] | None,
    acting: Mapping[str, Any] | None,
) -> list[Finding]:
    found = []
    health = resource["health"]
    if health["state"] == "degraded":
        told = f"degraded since {health['since']}: {health['cause']}: {health['detail']}"
        is_asked = (resource.get("alternate") or {}).get("in_use") and watched and not watched["degraded_at"]
        judge = warn if is_asked else fail  # the alternate account does what the first cannot
        found.append(judge(check, told, _REMEDIES.get(health["cause"], _ANY)))
    elif watched is None or watched["holder"] is None:
        found.append(fail(check, "no monitor watches it", "Start `tides run monitor`."))
    elif watched["sampled_at"] is None:
        found.append(warn(check, "not sampled yet", "Wait for two intervals, then ask again."))
    if acting is not None and acting["state"] != "closed":
        told = f"acts are refused since {acting['since']}: {acting['cause']}: {acting['detail']}"
        told += f"; next try at {acting['next_try_at']}"
        found.append(warn(check, told, _REMEDIES.get(acting["cause"], _ANY)))
    if resource["alarm"]:
        remedy = "Look at the machines; allow them to be removed, or mend the database (docs/operations.md)."
        found.append(fail(check, f"the sweeper waits: {resource['alarm']['reason']}", remedy))
    return found


def _account(check: str, resource: Mapping[str, Any]) -> list[Finding]:
    validation = resource["validation"]
    if validation is None:
        return [warn(check, "never validated", "Ask `tides resource validate`.")]
    found = []
    for missing in validation["missing"]:
        told = f"missing privilege {missing['privilege']}: {missing['disables']}"
        found.append(warn(check, told, "Give it to the account's role (docs/vsphere-account.md)."))
    for blocker in validation["blockers"]:
        found.append(warn(check, f"nothing can be lent: {blocker['detail']}", blocker["remedy"]))
    return found
