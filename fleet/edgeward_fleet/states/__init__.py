"""Desired and reported state: what each device should be, and what it says it is."""
