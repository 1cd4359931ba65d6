"""Policies, their revisions and assignments."""
