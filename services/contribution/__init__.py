"""Projects, and what organisations lend to them."""
