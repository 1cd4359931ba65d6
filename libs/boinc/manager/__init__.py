"""The account-manager protocol: what a client says, what it is answered, and nothing that it would misread."""

from libs.boinc.manager.reply import (
    ManagerReply,
    ProjectAccount,
    parse_reply,
    render_config,
    render_error,
    render_reply,
)
from libs.boinc.manager.request import (
    LARGEST_REQUEST,
    HostInfo,
    ManagerRequest,
    NoRequest,
    ReportedProject,
    ReportedTask,
    parse_request,
    render_request,
)

__all__ = [
    "LARGEST_REQUEST",
    "HostInfo",
    "ManagerReply",
    "ManagerRequest",
    "NoRequest",
    "ProjectAccount",
    "ReportedProject",
    "ReportedTask",
    "parse_reply",
    "parse_request",
    "render_config",
    "render_error",
    "render_reply",
    "render_request",
]
