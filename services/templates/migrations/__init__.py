"""Schema history of templates."""
