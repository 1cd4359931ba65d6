"""BOINC's files and protocols. No service in it, no I/O."""
