"""vmware_exporter as the bench's rival: installed in an environment of its own, scraped as Prometheus does it."""

import ast
import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tools.bench._vsphere_sides import COUNTERS
from tools.parts import debian
from tools.parts.slots import free_port
from tools.parts.vcsim import Vcsim

# As published it lacks requests and does not run with newer Twisted.
PACKAGES = ("vmware_exporter==0.18.4", "Twisted==22.10.0", "requests")
SCRAPE_S = 600.0
SCRAPES = 2
_INVENTORY = {"vm_inventory": "VirtualMachine", "host_system_inventory": "HostSystem"}


def install() -> Path:
    """The environment's folder; made once."""
    folder = debian.cache_folder() / "vmware_exporter-0.18.4"
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(folder / "bin/pip"), "install", "-q", "-q", *PACKAGES], check=True)
        (folder / "done").touch()
    return folder


def read_lists(folder: Path) -> dict[str, Any]:
    """Its own counters and property paths by type, out of its source."""
    [source] = folder.glob("lib/python3*/site-packages/vmware_exporter/vmware_exporter.py")
    found: dict[str, Any] = {"HostSystem": {"paths": []}, "VirtualMachine": {"paths": []}}
    for node in ast.walk(ast.parse(source.read_text())):
        if not isinstance(node, ast.FunctionDef):
            continue
        texts = [_texts(each) for each in ast.walk(node) if isinstance(each, ast.List)]
        counters = [each for each in texts if len(each) > 8 and all(text.count(".") == 2 for text in each)]
        if counters and "perf" in node.name:
            kind = "HostSystem" if "host" in node.name else "VirtualMachine"
            found[kind]["counters"] = counters[0]
        if node.name in _INVENTORY:
            found[_INVENTORY[node.name]]["paths"] = [text for each in texts for text in each]
    return found


def _texts(node: ast.List) -> list[str]:
    return [
        each.value for each in node.elts if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]


async def scrape(vcsim: Vcsim) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of its fastest scrape, and its lists."""
    folder = await asyncio.to_thread(install)
    port = free_port()
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "VSPHERE_HOST": f"{vcsim.host}:{vcsim.port}",
        "VSPHERE_USER": vcsim.username,
        "VSPHERE_PASSWORD": vcsim.password,
        "VSPHERE_IGNORE_SSL": "True",
    }
    print("vmware_exporter ...", file=sys.stderr, flush=True)
    process = await asyncio.create_subprocess_exec(
        *(str(folder / "bin/vmware_exporter"), "-a", "127.0.0.1", "-p", str(port)),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        scrapes = [await _scrape(port, psutil.Process(process.pid)) for _ in range(SCRAPES)]
    finally:
        process.terminate()
        await process.wait()
    return min(scrapes, key=lambda each: float(each["wall_s"])), read_lists(folder)


async def _scrape(port: int, process: psutil.Process) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=SCRAPE_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        await _await_start(http, port)
        spent, began = process.cpu_times(), time.perf_counter()
        series = 0
        async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
            answer.raise_for_status()
            async for line in answer.content:
                series += not line.startswith(b"#")
        wall_s = time.perf_counter() - began
    now = process.cpu_times()
    peak = Path(f"/proc/{process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
    cpu_s = now.user + now.system - spent.user - spent.system
    return {"wall_s": wall_s, "cpu_s": cpu_s, "peak_mib": int(peak) / 1024, "series": series}


async def _await_start(http: aiohttp.ClientSession, port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                async with http.get(f"http://127.0.0.1:{port}/healthz"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)


def tell_counters() -> None:
    """Which counters each side reads."""
    lists = read_lists(install())
    print(f"counters of all sides: {', '.join(COUNTERS)}")
    for kind in ("HostSystem", "VirtualMachine"):
        print(
            f"counters of vmware_exporter for {kind}, and of ours beside it: {', '.join(lists[kind]['counters'])}"
        )
