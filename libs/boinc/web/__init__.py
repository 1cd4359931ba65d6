"""The web RPCs of a BOINC project: accounts, hosts, credit, state of the server, statistics files."""

from libs.boinc.web.answers import (
    Account,
    HostCredit,
    ProjectConfig,
    ServerStatus,
    UserCredit,
    host_of,
    password_hash,
)
from libs.boinc.web.client import ProjectClient, open_project
from libs.boinc.web.errors import (
    BadEmail,
    BadPassword,
    BadUserName,
    ConsentRequired,
    CreationDisabled,
    NoSuchFile,
    NotFound,
    NotUnique,
    ProjectDown,
    ProjectRefused,
    ProjectUnavailable,
)
from libs.boinc.web.reach import ANYWHERE, FAR, OutOfReach, Reach, reach_of
from libs.boinc.web.stats import StatsFile, StatsKind, open_stats

__all__ = [
    "ANYWHERE",
    "FAR",
    "Account",
    "BadEmail",
    "BadPassword",
    "BadUserName",
    "ConsentRequired",
    "CreationDisabled",
    "HostCredit",
    "NoSuchFile",
    "NotFound",
    "NotUnique",
    "OutOfReach",
    "ProjectClient",
    "ProjectConfig",
    "ProjectDown",
    "ProjectRefused",
    "ProjectUnavailable",
    "Reach",
    "ServerStatus",
    "StatsFile",
    "StatsKind",
    "UserCredit",
    "host_of",
    "open_project",
    "open_stats",
    "password_hash",
    "reach_of",
]
