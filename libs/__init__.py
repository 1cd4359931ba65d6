"""Libraries: they know no service."""
