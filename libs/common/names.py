"""Texts that come from outside: what a database can hold, and what may stand as one line before a person."""

from pydantic import AfterValidator


def is_storable(text: str) -> bool:
    """Whether PostgreSQL and UTF-8 can hold it: no zero byte, no half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text


def check_line(text: str) -> str:
    """One line that shows what it is: no control characters, nothing invisible, no change of direction.

    Raises ValueError with a sentence that quotes nothing.
    """
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text


ONE_LINE = AfterValidator(check_line)
"""For a name, a label or a reason in a request: `Annotated[str, Field(max_length=...), ONE_LINE]`."""
