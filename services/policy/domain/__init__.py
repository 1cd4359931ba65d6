"""Rehearsing policies: pure."""
