"""What can be done with resources: one function, one transaction."""
