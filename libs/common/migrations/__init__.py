"""Tables that every service's schema has: outbox, inbox, revoked tokens."""
