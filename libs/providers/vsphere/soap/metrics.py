"""Performance values out of an answer, in either format: by entity, counter and time, or left out and counted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from libs.providers.vsphere.soap.answer import VIM, Element
from libs.providers.vsphere.soap.envelope import Ref
from libs.providers.vsphere.soap.scan import METRIC_TOKENS
from libs.providers.vsphere.soap.values import parse_int, parse_time, read_ref

Series = dict[int, float]
"""Values by the end of their interval, in seconds since the epoch, a multiple of the interval."""

_ENTITY, _VALUE, _ID = f"{VIM}entity", f"{VIM}value", f"{VIM}id"
_INFO, _INFO_CSV = f"{VIM}sampleInfo", f"{VIM}sampleInfoCSV"
_TIMESTAMP, _INTERVAL = f"{VIM}timestamp", f"{VIM}interval"
_NO_VALUE = ("-1", "")
"""How a server says that it has none."""
_COUNTER, _INSTANCE = f"{VIM}counterId", f"{VIM}instance"


@dataclass(frozen=True, slots=True)
class Readings:
    """Series by entity and counter name, and what was left out of them, by reason."""

    series: dict[tuple[str, str], Series]
    left_out: Counter[str] = field(default_factory=Counter)

    def of(self, entity: str, counter: str) -> Series:
        return self.series.get((entity, counter), {})

    def times(self) -> set[int]:
        """Every time at which anything was read."""
        return {at for series in self.series.values() for at in series}


class Metrics:
    """Takes the items of QueryPerf's answers. What was not asked for, or has no time or no number, is left out."""

    def __init__(self, readings: Readings, counters: Mapping[int, str], interval_s: int) -> None:
        self._readings = readings
        self._counters = {str(number): name for number, name in counters.items()}
        self._interval_s = interval_s
        self._interval_text = str(interval_s)
        self._asked: set[Ref] = set()
        self._ticks: dict[str, int | None] = {}

    def ask(self, entities: Iterable[Ref]) -> None:
        """From now on answers may be about these, too."""
        self._asked.update(entities)

    def take(self, element: Element) -> None:
        """One entity's values."""
        entity: Ref | None = None
        times: list[int | None] = []
        found: list[Element] = []
        for child in element:
            tag = child.tag
            if tag == _VALUE:
                found.append(child)
            elif tag == _INFO:
                times.append(self._read_time(child))
            elif tag == _INFO_CSV:
                times.extend(self._read_times(child.text or ""))
            elif tag == _ENTITY:
                entity = read_ref(child) if entity is None else None
        admitted = self._admit(entity)
        if admitted is not None:
            for each in found:
                self._take_series(admitted.id, each, times)

    def take_run(self, text: str) -> None:
        """Many entities' values, in the usual form."""
        entity: Ref | None = None
        times: list[int | None] = []
        for kind, number, at, interval, csv, counter, instance, values in METRIC_TOKENS(text):
            if counter:
                if entity is not None and (name := self._name(counter, instance)) is not None:
                    self._note_series(entity.id, name, values[7:-8].split("</value><value>"), times)
            elif at:
                times.append(self._place(at, interval))
            elif kind:
                entity, times = self._admit(Ref(kind, number)), []
            else:
                times.extend(self._read_times(csv))

    def _admit(self, entity: Ref | None) -> Ref | None:
        """The entity, once: a second answer about it might contradict the first."""
        if entity is not None and entity in self._asked:
            self._asked.remove(entity)
            return entity
        self._readings.left_out["not asked for"] += 1
        return None

    def _take_series(self, entity: str, element: Element, times: Sequence[int | None]) -> None:
        name: str | None = None
        texts: list[str] = []
        for child in element:
            if child.tag == _VALUE:
                texts.append(child.text or "")
            elif child.tag == _ID:
                name = self._read_id(child)
        if name is not None:
            self._note_series(entity, name, texts, times)

    def _note_series(self, entity: str, name: str, texts: list[str], times: Sequence[int | None]) -> None:
        if len(texts) == 1 and "," in texts[0]:
            texts = texts[0].split(",")
        series = self._readings.series
        if (entity, name) in series:
            self._readings.left_out["twice"] += 1
            return
        known = series[entity, name] = {}
        if len(times) == len(texts) == 1:
            self._note(known, times[0], texts[0])
        else:
            self._note_all(known, times, texts)

    def _note_all(self, known: Series, times: Sequence[int | None], texts: Sequence[str]) -> None:
        # A series may be shorter than its times; what is longer has no time.
        if len(texts) != len(times):
            self._readings.left_out["not as many values as times"] += 1
        fresh: dict[int, str] = {}
        torn: set[int] = set()
        for at, text in zip(times, texts, strict=False):
            if at is None:
                self._note(known, None, text)
            elif fresh.setdefault(at, text) != text:
                torn.add(at)
        self._readings.left_out["two values at one time"] += len(torn)
        for at in sorted(fresh.keys() - torn):
            self._note(known, at, fresh[at])

    def _note(self, known: Series, at: int | None, text: str) -> None:
        if text in _NO_VALUE:
            return
        number = parse_int(text)
        if at is None:
            self._readings.left_out["no time"] += 1
        elif number is None or number < 0:
            self._readings.left_out["no number"] += 1
        else:
            # A second early still belongs to the interval that ends then.
            known[(at + 1) // self._interval_s * self._interval_s] = float(number)

    def _read_id(self, element: Element) -> str | None:
        counter = instance = ""
        for child in element:
            if child.tag == _COUNTER:
                counter = child.text or ""
            elif child.tag == _INSTANCE:
                instance = child.text or ""
        return self._name(counter, instance)

    def _name(self, counter: str, instance: str) -> str | None:
        """The counter's name; None for one that was not asked for."""
        name = self._counters.get(counter)
        if name is None:
            self._readings.left_out["not asked for"] += 1
        return None if instance else name

    def _read_time(self, element: Element) -> int | None:
        at = interval = None
        for child in element:
            if child.tag == _TIMESTAMP:
                at = child.text
            elif child.tag == _INTERVAL:
                interval = child.text
        return self._place(at, interval)

    def _read_times(self, text: str) -> list[int | None]:
        parts = text.split(",")
        return [self._place(at, interval) for interval, at in zip(parts[::2], parts[1::2], strict=False)]

    def _place(self, at: str | None, interval: str | None) -> int | None:
        if at is None or interval != self._interval_text:
            return None
        # Fractions differ from entity to entity, and the second they belong to does not.
        whole, fraction = at[:19], at[19:-1]
        if at[-1:] == "Z" and (not fraction or (fraction[0] == "." and fraction[1:].isdecimal())):
            at = whole + "Z"
        if at not in self._ticks:
            self._ticks[at] = parse_time(at)
        return self._ticks[at]
