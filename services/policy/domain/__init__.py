"""Reading documents, and rehearsing policies: pure."""
