"""The devices of the fleet: who they are, how they are, and the end of their certificates."""
