"""One run of the tests: real servers for all workers, pytest, and an orderly end."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from tools.parts import boinc, postgres, rabbitmq, vcsim

ROOT = Path(__file__).parents[1]
WORKERS = 3
"""One more than the two cores of a machine for tests: half of the time a test waits for a server or for a process."""

Starter = Callable[[AsyncExitStack], Awaitable[dict[str, str]]]


async def run_tests(arguments: Sequence[str]) -> int:
    """Start what is missing, run pytest, end what was started; the answer is pytest's exit code."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    async with AsyncExitStack() as stack:
        began = time.perf_counter()
        environment = await start_parts(stack)
        ready = time.perf_counter()
        print(f"parts ready after {ready - began:.1f} s", flush=True)
        workers = (
            []
            if any(given.startswith(("-n", "--numprocesses", "--pdb")) for given in arguments)
            else ["-n", str(WORKERS)]
        )
        # A whole run says what took longest: where to look when it takes too long.
        told = [] if arguments else ["--durations=25", "--durations-min=5"]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "pytest", "--dist", "loadgroup", *workers, *told, *arguments),
            cwd=ROOT,
            env=os.environ | environment,
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            # Ctrl-C reached pytest as well; it tears down and reports by itself.
            code = await process.wait()
        print(f"tests took {time.perf_counter() - ready:.1f} s", flush=True)
    return code


async def start_parts(stack: AsyncExitStack) -> dict[str, str]:
    """Find or start PostgreSQL, RabbitMQ, vcsim and BOINC; the answer is the environment that tests read."""
    starts: dict[str, Starter] = {
        "PostgreSQL": _start_postgres,
        "RabbitMQ": _start_rabbitmq,
        "vcsim": _build_vcsim,
        "BOINC": _find_boinc,
    }
    found = await asyncio.gather(*(_timed(name, start, stack) for name, start in starts.items()))
    return {name: value for part in found for name, value in part.items()}


async def _timed(name: str, start: Starter, stack: AsyncExitStack) -> dict[str, str]:
    began = time.perf_counter()
    environment = await start(stack)
    print(f"{name:<10} {time.perf_counter() - began:5.1f} s", flush=True)
    return environment


async def _start_postgres(stack: AsyncExitStack) -> dict[str, str]:
    url = await postgres.find_running()
    if url is None:
        server = postgres.PostgresServer()
        stack.push_async_callback(server.close)
        await server.start()
        url = server.url
    return {"TIDES_TEST_DATABASE_URL": url}


async def _start_rabbitmq(stack: AsyncExitStack) -> dict[str, str]:
    found = await rabbitmq.find_running()
    if found is None:
        node = rabbitmq.RabbitNode()
        stack.push_async_callback(node.close)
        await node.start()
        found = node.url, node.management_url
    return {"TIDES_TEST_AMQP_URL": found[0], "TIDES_TEST_AMQP_MANAGEMENT_URL": found[1]}


async def _build_vcsim(stack: AsyncExitStack) -> dict[str, str]:
    return {"TIDES_TEST_VCSIM_PROGRAM": str(await asyncio.to_thread(vcsim.find_program))}


async def _find_boinc(_stack: AsyncExitStack) -> dict[str, str]:
    return dict(boinc.environment_of(await asyncio.to_thread(boinc.find_program)))
