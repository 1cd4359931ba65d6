"""The commands behind ./dev: check, test, bench, schemas, lock."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools import session
from tools.parts import PartMissing

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CODE = [folder for folder in ("services", "libs", "tools", "tests") if (ROOT / folder).is_dir()]

# The slowest first: two run at a time.
STEPS: dict[str, list[str]] = {
    "types": [str(BIN / "mypy"), *CODE],
    "imports": [str(BIN / "lint-imports"), "--no-logo"],
    "schemas": [sys.executable, "-m", "tools.schemas", "--check"],
    "format": [str(BIN / "ruff"), "format", "--check", *CODE],
    "lint": [str(BIN / "ruff"), "check", *CODE],
    "budgets": [sys.executable, "-m", "tools.budgets"],
}
COMPILE = ["pip", "compile", "-q", "--universal", "--generate-hashes", "--no-header", "--no-annotate"]
COMPILE += ["--no-emit-index-url", "--no-emit-find-links", "--python-version", "3.11", "--upgrade"]


def check(arguments: Sequence[str]) -> int:
    """Run every step, or those that are named; one line each, and what the failed ones said."""
    unknown = set(arguments) - STEPS.keys()
    if unknown:
        print(f"no such step: {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
        return 2
    chosen = list(arguments) or list(STEPS)
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = list(pool.map(_run_step, chosen))
    failed = [(name, said) for name, code, said in results if code != 0]
    for name, said in failed:
        print(f"\n--- {name}\n{said.strip()}")
    print(f"\ncheck: {len(results) - len(failed)} ok, {len(failed)} failed")
    return 1 if failed else 0


def test(arguments: Sequence[str]) -> int:
    """Run pytest against real servers, which are started before and ended after it."""
    try:
        return asyncio.run(session.run_tests(arguments))
    except PartMissing as missing:
        print(missing, file=sys.stderr)
        return 3


def bench(arguments: Sequence[str]) -> int:
    """Run one module of tools/bench, with the arguments that follow its name."""
    known = sorted(path.stem.replace("_", "-") for path in (ROOT / "tools" / "bench").glob("[!_]*.py"))
    if not arguments or arguments[0] not in known:
        print(f"./dev bench NAME, where NAME is one of: {', '.join(known) or 'none yet'}")
        return 2
    return _call([sys.executable, "-m", f"tools.bench.{arguments[0].replace('-', '_')}", *arguments[1:]])


def schemas(arguments: Sequence[str]) -> int:
    """Write the frozen event and API schemas anew."""
    return _call([sys.executable, "-m", "tools.schemas", *arguments])


def lock(arguments: Sequence[str]) -> int:
    """Resolve the three lock files to the newest versions; no host is written into them."""
    found = shutil.which("uv", path=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        print("uv is needed for this: pip install uv")
        return 3
    targets = {
        "requirements.lock": ["--extra", "tracing", "pyproject.toml"],
        "requirements-dev.lock": [
            "--extra",
            "dev",
            "--extra",
            "tracing",
            "-c",
            "requirements.lock",
            "pyproject.toml",
        ],
        "requirements-uv.lock": ["tools/installer.in"],
    }
    for target, sources in targets.items():
        code = _call([found, *COMPILE, *arguments, "-o", target, *sources])
        if code != 0:
            return code
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "check": check,
    "test": test,
    "bench": bench,
    "schemas": schemas,
    "lock": lock,
}


def main() -> int:
    """Run the command that the first argument names."""
    return COMMANDS[sys.argv[1]](sys.argv[2:])


def _run_step(name: str) -> tuple[str, int, str]:
    began = time.perf_counter()
    result = subprocess.run(STEPS[name], cwd=ROOT, capture_output=True, text=True, check=False)
    word = "ok    " if result.returncode == 0 else "FAILED"
    print(f"{word} {name:<8} {time.perf_counter() - began:6.1f} s", flush=True)
    return name, result.returncode, result.stdout + result.stderr


def _call(command: Sequence[str]) -> int:
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
