"""How timid the sweeper is."""

BY_ITSELF = 3
SHARE = 0.1


def is_too_many(strangers: int, known: int) -> bool:
    """Whether so many machines with our mark that no row knows mean that the rows, not the machines, are wrong."""
    return strangers > BY_ITSELF or strangers > SHARE * known
