"""How a device takes a new release: the update machine, what it stores, and the hands that act for it."""
