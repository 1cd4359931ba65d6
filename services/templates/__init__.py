"""Template versions: registered, approved, revoked."""
