"""Revisions of schema `monitor`."""
