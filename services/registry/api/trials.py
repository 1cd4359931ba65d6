"""Trials of a resource's driver: the steps as lines of JSON, told as they end; who hangs up ends the trial cleanly."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict

import structlog
from fastapi import Request

from libs.common.ids import new_id
from libs.common.service import Runtime
from libs.providers.base import ProviderError
from libs.providers.registry import load_driver
from libs.providers.trial import Step, Trial, Wanted
from services.registry.api.probe import close, connect_to
from services.registry.domain import Endpoint

log = structlog.get_logger(__name__)

STOP_WITHIN_S = 15.0


class Trials:
    """Those that run in this process; each goes on until what it made is taken away."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._running: set[asyncio.Task[None]] = set()

    async def lines(
        self, request: Request, endpoint: Endpoint, cluster: str | None, template: str | None
    ) -> AsyncIterator[str]:
        """One line for each step, until the trial is over or the reader is gone."""
        steps: asyncio.Queue[Step | None] = asyncio.Queue()
        wanted = Wanted(new_id(), cluster, template)
        task = asyncio.create_task(self._run(endpoint, wanted, steps.put_nowait))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: steps.put_nowait(None))
        stopping = asyncio.create_task(request.app.state.stopping.wait())
        try:
            while True:
                asked = asyncio.create_task(steps.get())
                await asyncio.wait({asked, stopping}, return_when=asyncio.FIRST_COMPLETED)
                step = asked.result() if asked.done() else None
                asked.cancel()
                if step is None:
                    return
                yield json.dumps(asdict(step)) + "\n"
        finally:
            # A task of its own, so that taking away goes on though this answer is over.
            stopping.cancel()
            task.cancel()

    async def aclose(self) -> None:
        """End every trial, and let it take away what it made."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_WITHIN_S)

    async def _run(self, endpoint: Endpoint, wanted: Wanted, tell: Callable[[Step], None]) -> None:
        connection = connect_to(endpoint, new_id(), wanted.installation_id)
        try:
            driver = await load_driver(endpoint.provider)
            provider = await driver.open(connection, self._runtime.vault, self._runtime.clock)
        except ProviderError as refusal:
            tell(Step("log in", False, 0.0, str(refusal)))
            return
        try:
            await Trial(provider, wanted, tell).run()
        except Exception as error:
            log.exception("resource.trial_failed", provider=endpoint.provider)
            tell(Step("the trial itself", False, 0.0, f"the driver failed: {type(error).__name__}"))
        finally:
            await close(provider)
