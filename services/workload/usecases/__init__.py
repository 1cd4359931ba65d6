"""One function, one transaction."""
