"""What crosses a border between services: the event catalogue and the values in it. Imports pydantic and the standard library only."""
