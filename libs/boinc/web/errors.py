"""What a project says no with, and what is only a bad day of it."""

import re


class ProjectUnavailable(Exception):
    """It does not answer, or not as a BOINC project: a page, a time-out, too much. Later it may."""


class NoSuchFile(ProjectUnavailable):
    """The project does not have this file, or not for us."""


class ProjectRefused(Exception):
    """The project said no. `number` is BOINC's; the message is the project's own, one line of it."""

    def __init__(self, number: int, message: str) -> None:
        self.number = number
        super().__init__(message or f"The project refuses with {number}.")


class NotFound(ProjectRefused):
    """No such account, user or host; or the key may not see it."""


class NotUnique(ProjectRefused):
    """An account of this e-mail address exists with another password."""


class ProjectDown(ProjectRefused):
    """Stopped for maintenance. Later it is there."""


class BadUserName(ProjectRefused):
    """Empty, or with blanks around it."""


class BadEmail(ProjectRefused):
    """Not an address that the project takes."""


class BadPassword(ProjectRefused):
    """Wrong; it is not tried again."""


class CreationDisabled(ProjectRefused):
    """The project takes no new accounts."""


class ConsentRequired(ProjectRefused):
    """The terms must be shown and agreed to first."""


_KEY = re.compile(r"[0-9a-fA-F]{32}")
_TYPES: dict[int, type[ProjectRefused]] = {
    -136: NotFound,
    -137: NotUnique,
    -138: ProjectDown,
    -183: ProjectDown,
    -188: BadUserName,
    -205: BadEmail,
    -206: BadPassword,
    -208: CreationDisabled,
    -242: ConsentRequired,
}


def refusal(number: int, message: str) -> ProjectRefused:
    """The error of this number."""
    line = " ".join("".join(c if c.isprintable() else " " for c in message).split())[:200]
    line = _KEY.sub("…", line)  # a project may say what it was told
    return _TYPES.get(number, ProjectRefused)(number, line)
