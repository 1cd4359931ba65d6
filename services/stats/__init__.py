"""Usage history and what comes of it."""
