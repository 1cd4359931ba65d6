"""What blocking work is given to talk to a vSphere API."""

import threading
from datetime import datetime
from typing import Any

from pyVmomi import vim

from libs.providers.vsphere.transport import Stub


class Api:
    """What blocking work is given: the service content, and a property collector for each consumer."""

    def __init__(self, stub: Stub) -> None:
        self.stub = stub
        self.content: Any = vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
        self.on_host = str(self.content.about.apiType) == "HostAgent"
        """Whether this is one ESXi host by itself: no folders, no clones, no attributes."""
        self.places: dict[str, tuple[Any, Any]] = {}
        """Of each cluster that was seen, by id: its reference, and the row of its datacenter, which it never leaves."""
        self._collectors: dict[str, Any] = {}
        self._lock = threading.Lock()

    def collector(self, consumer: str) -> Any:
        """The consumer's own property collector: the session's shared one mixes up filters and pages."""
        with self._lock:
            if consumer not in self._collectors:
                self._collectors[consumer] = self.content.propertyCollector.CreatePropertyCollector()
            return self._collectors[consumer]

    def now(self) -> datetime:
        """The server's own time, aware."""
        at: datetime = vim.ServiceInstance("ServiceInstance", self.stub).CurrentTime()
        return at
