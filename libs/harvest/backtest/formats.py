"""Traces as people have them, from bytes: Tides' own samples, GWA-T-12, npz, plain CSV."""

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import numpy as np

from libs.harvest.backtest.trace import (
    BEGINNING,
    CORE_MHZ,
    HOST_CORES,
    BadTrace,
    Floats,
    Load,
    MachinesTrace,
    hold,
)

_MOST_CELLS = 200_000_000
_KIB_PER_MIB = 1024.0
_FIRST_DATE_S, _LAST_DATE_S = 5e8, 7e9
"""Times that are dates, from 1985 to 2191; others count from the beginning of the trace."""


class Format(StrEnum):
    """What a file holds."""

    TIDES = "tides"
    GWA_T_12 = "gwa-t-12"
    NPZ = "npz"
    CSV = "csv"


def guess_format(name: str) -> Format:
    """By the file's name; a folder or an archive of files is GWA-T-12."""
    plain = name.lower().removesuffix(".gz")
    endings = {".npz": Format.NPZ, ".csv": Format.CSV, ".json": Format.TIDES, ".jsonl": Format.TIDES}
    return next((found for ending, found in endings.items() if plain.endswith(ending)), Format.GWA_T_12)


def read_trace(form: Format, files: Mapping[str, bytes]) -> MachinesTrace | Load:
    """The trace in these files (name to content). Raises BadTrace with a sentence that says what is wrong."""
    if not files:
        raise BadTrace("there is no file in the trace")
    readers: dict[Format, Callable[[Mapping[str, bytes]], MachinesTrace | Load]] = {
        Format.NPZ: lambda given: _read_npz(_only(given)),
        Format.CSV: lambda given: _read_csv(_only(given)),
        Format.TIDES: lambda given: _read_tides(_only(given)),
        Format.GWA_T_12: _read_gwa,
    }
    try:
        return readers[form](files)
    except BadTrace:
        raise
    except (
        ValueError, KeyError, IndexError, TypeError, OverflowError, EOFError, OSError, csv.Error,
        zipfile.BadZipFile, UnicodeError, NotImplementedError, RecursionError,
    ) as error:  # fmt: skip
        raise BadTrace(f"the trace is not in the format {form.value}: {_one_line(error)}") from None


def _read_npz(data: bytes) -> MachinesTrace | Load:
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        missing = {"cpu_mhz", "vcpus", "step"} - set(found.files)
        if missing:
            raise BadTrace(f"the npz lacks {', '.join(sorted(missing))}")
        step_s = float(found["step"])
        cpu, vcpus = _measured(found["cpu_mhz"]), np.asarray(found["vcpus"]).astype(np.int64)
        memory = _measured(found["mem_mb"]) if "mem_mb" in found.files else None
        begins = _date(float(found["t0"])) if "t0" in found.files else BEGINNING
    return replace(_machines(cpu, vcpus, step_s, memory), begins=begins)


def _measured(values: Any) -> Floats:
    """As floats; the largest of an unsigned 16-bit column stands for no sample."""
    numbers = np.asarray(values, dtype=np.float64)
    if values.dtype == np.uint16:
        numbers[values == 65535] = np.nan
    return numbers


def _machines(cpu: Floats, vcpus: Any, step_s: float, memory: Floats | None) -> MachinesTrace:
    if cpu.ndim != 2 or 0 in cpu.shape or vcpus.shape != (cpu.shape[0],):
        raise BadTrace("the columns of the trace do not have one row per machine")
    if memory is not None and memory.shape != cpu.shape:
        raise BadTrace("CPU and memory of the trace are not of the same shape")
    if not 1.0 <= step_s <= 3600.0:
        raise BadTrace(f"the trace's step is {step_s:g} s; 1 to 3600 can be replayed")
    if (vcpus < 1).any():
        raise BadTrace("a machine of the trace has no vCPU")
    cpu = np.where(np.isfinite(cpu) & (cpu >= 0.0), cpu, np.nan)
    if memory is not None:
        memory = np.where(np.isfinite(memory) & (memory >= 0.0), memory, np.nan)
    return MachinesTrace(cpu, np.asarray(vcpus, dtype=np.int64), step_s, memory)


def _read_gwa(files: Mapping[str, bytes]) -> MachinesTrace:
    """One file per machine, `;`-separated: ms or s, cores, MHz provisioned, MHz used, %, KB provisioned, KB used."""
    if len(files) == 1 and zipfile.is_zipfile(io.BytesIO(_only(files))):
        files = _unzip(_only(files))
    rows: list[tuple[str, float, dict[str, float]]] = []
    for name in sorted(files):
        for line in _lines(files[name])[1:]:
            cells = [cell.strip() for cell in line.split(";")]
            if len(cells) >= 7:
                values = {"vcpus": float(cells[1]), "cpu": float(cells[3]), "memory": float(cells[6])}
                rows.append((name, _seconds(cells[0]), values))
    if not rows:
        raise BadTrace("no line of the trace has the seven columns of GWA-T-12")
    table = _Table(rows)
    memory = table.columns("memory") / _KIB_PER_MIB
    found = _machines(table.columns("cpu"), table.most("vcpus"), table.step_s, memory)
    return replace(found, begins=table.begins)


def _read_csv(data: bytes) -> MachinesTrace | Load:
    """Rows of machines (vm, ts, vcpus, cpu_mhz) or of hosts (host, ts, cpu in percent), by their header."""
    reader = csv.DictReader(_lines(data))
    names = [name.strip().lower() for name in reader.fieldnames or ()]
    reader.fieldnames = names
    if {"vm", "ts", "vcpus", "cpu_mhz"} <= set(names):
        wanted = {"vcpus": "vcpus", "cpu": "cpu_mhz"} | ({"memory": "mem_mb"} if "mem_mb" in names else {})
        table = _Table(_csv_rows(reader, "vm", "ts", wanted))
        memory = table.columns("memory") if "memory" in wanted else None
        found = _machines(table.columns("cpu"), table.most("vcpus"), table.step_s, memory)
        return replace(found, begins=table.begins)
    who = next((name for name in ("host", "machine", "m") if name in names), None)
    when = next((name for name in ("ts", "time", "t") if name in names), None)
    use = next((name for name in ("cpu_percent", "cpu") if name in names), None)
    if who is None or when is None or use is None:
        raise BadTrace(
            "the CSV's header must name vm, ts, vcpus, cpu_mhz (MHz), or host, ts, cpu_percent; "
            f"it names {', '.join(names[:12]) or 'nothing'}"
        )
    table = _Table(_csv_rows(reader, who, when, {"cpu": use}))
    owner = np.clip(table.columns("cpu") / 100.0, 0.0, 1.0)
    return _hosts(owner, table, np.full(owner.shape[0], float(HOST_CORES)))


def _hosts(owner: Floats, table: "_Table", cores: Floats) -> Load:
    """What was not measured for longer than an hour counts as a full host."""
    return Load(hold(owner, table.step_s, 1.0), table.step_s, cores, CORE_MHZ, begins=table.begins)


def _csv_rows(
    reader: Iterable[Mapping[str, str]], who: str, when: str, wanted: Mapping[str, str]
) -> list[tuple[str, float, dict[str, float]]]:
    rows = []
    for row in reader:
        values = {name: float(row[column]) if row[column] else np.nan for name, column in wanted.items()}
        rows.append((row[who], _seconds(row[when]), values))
    if not rows:
        raise BadTrace("the CSV has no rows")
    return rows


def _read_tides(data: bytes) -> Load:
    """Samples as the API takes and gives them: a JSON list, an object with `samples`, or one per line."""
    text = _decode(data).strip()
    found = json.loads(text) if text[:1] == "[" else [json.loads(line) for line in text.splitlines()]
    if len(found) == 1 and isinstance(found[0], dict) and "samples" in found[0]:
        found = found[0]["samples"]
    rows: list[tuple[str, float, dict[str, float]]] = []
    for sample in found:
        at_s = datetime.fromisoformat(sample["at"]).timestamp()
        for index, host in enumerate(sample["hosts"]):
            capacity = float(sample["cpu_capacity_mhz"][index])
            used = float(sample["cpu_used_mhz"][index]) - float(sample["cpu_ours_mhz"][index])
            share = min(1.0, used / capacity) if capacity > 0 and used >= 0 else 1.0
            values = {"owner": share, "capacity": capacity, **_memory_of(sample, index)}
            rows.append((f"{sample['cluster']}/{host}", at_s, values))
    if not rows:
        raise BadTrace("the trace has no samples")
    table = _Table(rows)
    cores = np.maximum(1.0, np.round(table.most("capacity") / CORE_MHZ))
    load = _hosts(table.columns("owner"), table, cores)
    size_mib = table.most("mib")
    if not (size_mib > 0).all():
        return load
    memory = hold(table.columns("memory"), table.step_s, 1.0)
    return replace(load, memory=memory, memory_mib=float(size_mib.mean()), memory_binds=True)


def _memory_of(sample: Mapping[str, Any], index: int) -> dict[str, float]:
    """The owner's share of a host's memory and its size; full and 0 where the samples do not say."""
    names = ("memory_capacity_mib", "memory_used_mib", "memory_ours_mib")
    if not all(name in sample for name in names):
        return {"memory": 1.0, "mib": 0.0}
    size, used, ours = (float(sample[name][index]) for name in names)
    is_known = size > 0 and used - ours >= 0
    return {"memory": min(1.0, (used - ours) / size) if is_known else 1.0, "mib": size}


class _Table:
    """Rows of (who, when, values) as matrices by who and step."""

    def __init__(self, rows: Sequence[tuple[str, float, Mapping[str, float]]]) -> None:
        times = np.array([at for _, at, _ in rows])
        if not np.isfinite(times).all():
            raise BadTrace("a time of the trace is not a number")
        names = {name: number for number, name in enumerate(dict.fromkeys(name for name, _, _ in rows))}
        self._who = np.array([names[name] for name, _, _ in rows])
        self.step_s = _find_step(self._who, times)
        self.begins = _date(float(times.min()))
        self._when = np.round((times - times.min()) / self.step_s).astype(np.int64)
        self._shape = (len(names), int(self._when.max()) + 1)
        if self._shape[0] * self._shape[1] > _MOST_CELLS:
            raise BadTrace(
                f"the trace spans {self._shape[1]} steps of {self.step_s:g} s, more than can be held"
            )
        self._rows = rows

    def columns(self, name: str) -> Floats:
        """The mean of each step; NaN where nothing was measured."""
        values = np.array([row[name] for _, _, row in self._rows])
        good = np.isfinite(values)
        total, count = np.zeros(self._shape), np.zeros(self._shape)
        np.add.at(total, (self._who[good], self._when[good]), values[good])
        np.add.at(count, (self._who[good], self._when[good]), 1.0)
        return np.where(count > 0, total / np.maximum(1.0, count), np.nan)

    def most(self, name: str) -> Floats:
        """The largest value of each row."""
        found = np.zeros(self._shape[0])
        np.maximum.at(found, self._who, np.array([row[name] for _, _, row in self._rows]))
        return found


def _find_step(who: Any, times: Floats) -> float:
    """The commonest distance of two samples of the same row, in whole seconds."""
    order = np.lexsort((times, who))
    apart = np.diff(times[order])[np.diff(who[order]) == 0]
    apart = np.round(apart[apart > 0])
    if apart.size == 0 or apart.max() < 1:
        raise BadTrace("the trace has fewer than two samples of anything")
    steps, counts = np.unique(apart[apart >= 1], return_counts=True)
    return float(steps[counts.argmax()])


def _seconds(text: str) -> float:
    """A time as seconds since the epoch; milliseconds are told by their size, dates by their look."""
    try:
        number = float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()
    return number / 1000.0 if number > 1e11 else number


def _date(at_s: float) -> datetime:
    """Policies with windows need to know; a trace that counts from 0 begins on a Monday."""
    return datetime.fromtimestamp(at_s, UTC) if _FIRST_DATE_S < at_s < _LAST_DATE_S else BEGINNING


def _only(files: Mapping[str, bytes]) -> bytes:
    if len(files) != 1:
        raise BadTrace("this format is one file; a folder can only be gwa-t-12")
    data = next(iter(files.values()))
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _unzip(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {
            one.filename: archive.read(one) for one in archive.infolist() if one.filename.endswith(".csv")
        }


def _lines(data: bytes) -> list[str]:
    return _decode(data).splitlines()


def _decode(data: bytes) -> str:
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")


def _one_line(error: Exception) -> str:
    return " ".join(f"{error}".split())[:200] or type(error).__name__
