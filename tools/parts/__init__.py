"""The real servers that tests use: found running, started privately, or installed first."""


class PartMissing(Exception):
    """A real part cannot be had here; the message is one sentence that says what to do."""
