"""Questions and answers as texts: what is cut out of them, and what they are turned into."""

import re

ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope'
    ' xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>{}</soapenv:Body></soapenv:Envelope>'
)


def as_measured(text: str, off: set[str]) -> str:
    """QueryPerf's answer with the oldest first, as a real one has it, and nothing of machines that are off."""

    def turn(found: re.Match[str]) -> str:
        item = found[0]
        entity = first(r"<entity[^>]*>([^<]+)</entity>", item)
        if entity in off:
            return re.sub(r"<sampleInfo>.*(?=</returnval>)", "", item, flags=re.DOTALL)
        item = re.sub(r"(?:<sampleInfo>.*?</sampleInfo>)+", _reverse_infos, item, count=1, flags=re.DOTALL)
        return re.sub(r"(?<=</id>)(?:<value>[^<]*</value>)+", _reverse_values, item)

    return re.sub(r"<returnval.*?</returnval>", turn, text, flags=re.DOTALL)


def _reverse_infos(found: re.Match[str]) -> str:
    return "".join(reversed(re.findall(r"<sampleInfo>.*?</sampleInfo>", found[0], re.DOTALL)))


def _reverse_values(found: re.Match[str]) -> str:
    return "".join(reversed(re.findall(r"<value>[^<]*</value>", found[0])))


def as_csv(text: str) -> str:
    """QueryPerf's answer in the other format."""

    def convert(found: re.Match[str]) -> str:
        item = found[0].replace('"PerfEntityMetric"', '"PerfEntityMetricCSV"')
        item = item.replace('"PerfMetricIntSeries"', '"PerfMetricSeriesCSV"')
        times = re.findall(r"<timestamp>([^<]*)</timestamp><interval>([^<]*)<", item)
        info = ",".join(f"{interval},{at}" for at, interval in times)
        item = re.sub(r"(<sampleInfo>.*</sampleInfo>)", f"<sampleInfoCSV>{info}</sampleInfoCSV>", item)
        return re.sub(r"(?<=</id>)<value>(.*?)</value>(?=</value>)", _join_values, item)

    return re.sub(r"<returnval.*?</returnval>", convert, text, flags=re.DOTALL)


def _join_values(found: re.Match[str]) -> str:
    return f"<value>{found[1].replace('</value><value>', ',')}</value>"


def hide(text: str, hidden: set[str]) -> str:
    """An inventory without these objects."""
    pattern = r"<objects><obj [^>]*>([^<]*)</obj>.*?</objects>"
    return re.sub(pattern, lambda each: "" if each[1] in hidden else each[0], text, flags=re.DOTALL)


def deny(text: str, lacking: set[str]) -> str:
    """HasPrivilegeOnEntities's answer without these privileges."""
    for privilege in lacking:
        text = re.sub(rf"(<privId>{re.escape(privilege)}</privId>\s*<isGranted>)true", r"\1false", text)
    return text


def ref_in(body: str, tag: str) -> tuple[str, str] | None:
    """Kind and id of the object that a tag names."""
    found = re.search(rf'<{tag}[^>]* type="(\w+)"[^>]*>([^<]+)</{tag}>', body)
    return (found.group(1), found.group(2)) if found else None


def first(pattern: str, text: str) -> str | None:
    """The first group of the first match."""
    found = re.search(pattern, text, re.DOTALL)
    return found.group(1) if found else None
