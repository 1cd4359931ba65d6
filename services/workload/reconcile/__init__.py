"""Workload's beats: judge silence, apply limits, bring machines in line. Each acts outside any transaction."""
