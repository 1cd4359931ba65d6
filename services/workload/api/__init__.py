"""HTTP of workload."""
