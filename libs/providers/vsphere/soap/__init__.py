"""The hot path by raw SOAP: what is read in every round, over aiohttp, parsed while it arrives."""

from libs.providers.vsphere.soap.answer import Garbled
from libs.providers.vsphere.soap.envelope import Ref, Step, write_start
from libs.providers.vsphere.soap.line import MOST_METRICS, PAGE, Access, Line, Paths, Question, View
from libs.providers.vsphere.soap.metrics import Readings, Series
from libs.providers.vsphere.soap.pace import Pace
from libs.providers.vsphere.soap.updates import TaskNews, TaskWatch
from libs.providers.vsphere.soap.values import Found, Leaves, parse_time
from libs.providers.vsphere.soap.wire import Wire

__all__ = [
    "MOST_METRICS",
    "PAGE",
    "Access",
    "Found",
    "Garbled",
    "Leaves",
    "Line",
    "Pace",
    "Paths",
    "Question",
    "Readings",
    "Ref",
    "Series",
    "Step",
    "TaskNews",
    "TaskWatch",
    "View",
    "Wire",
    "parse_time",
    "write_start",
]
