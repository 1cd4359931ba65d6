"""Schema history of stats."""
