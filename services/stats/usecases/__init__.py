"""One function, one transaction: storing samples, learning, rolling up, reporting."""
