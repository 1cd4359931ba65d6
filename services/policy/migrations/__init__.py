"""Schema history of policy."""
