"""What crosses a border between services: the event catalogue and the values in it. Knows no other room."""
