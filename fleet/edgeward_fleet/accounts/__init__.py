"""People and programs that use the fleet: roles, passwords, tokens."""
