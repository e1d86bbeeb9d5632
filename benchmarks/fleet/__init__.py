"""A fleet of many devices on one machine: what it costs and how long a device waits."""
