"""Revisions of schema `registry`."""
