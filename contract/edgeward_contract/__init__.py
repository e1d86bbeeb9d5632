"""What the agent and the fleet agree on. Standard library only, no I/O, no clock."""
