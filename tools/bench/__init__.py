"""Measurements: each module is one, run by `./dev bench NAME`."""
