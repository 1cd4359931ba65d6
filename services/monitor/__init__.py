"""Samples: what every resource uses, on its own interval."""
