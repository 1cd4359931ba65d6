"""Contribution's beats: watch guests; visit every project now and then, one replica at a time."""
