"""`edgeward demo`: a fleet, real devices and 569 real patients on one machine, and an independent count of it all."""
