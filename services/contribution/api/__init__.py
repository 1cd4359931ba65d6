"""HTTP of contribution."""
