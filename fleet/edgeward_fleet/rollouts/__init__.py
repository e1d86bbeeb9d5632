"""One release over many devices, in phases, on evidence."""
