"""Identity: organisations, users, roles, and the tokens by which they are known."""
