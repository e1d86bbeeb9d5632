"""The fleet: rolls models out to devices and takes their results."""
