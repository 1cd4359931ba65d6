"""Drivers for clouds, found by entry point (`tides.providers`): nothing outside this package imports one by name."""
