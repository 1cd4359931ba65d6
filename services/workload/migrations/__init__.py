"""Workload's migrations, expand-and-contract."""
