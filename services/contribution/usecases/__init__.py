"""What contribution does: one function, one transaction."""
