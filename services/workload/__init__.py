"""Workload: judges samples, runs machines."""
