"""What can be done with users, logins and tokens: one function, one transaction."""
