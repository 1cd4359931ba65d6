"""A BOINC world for tests: a strict stand-in project, a stand-in account manager, and a program that only counts."""
