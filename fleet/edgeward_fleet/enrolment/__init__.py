"""How a device gets its certificate: the fleet's own CA and one-time tokens."""
