"""HTTP of stats: /v1/stats."""
