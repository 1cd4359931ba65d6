"""Schema history of contribution."""
