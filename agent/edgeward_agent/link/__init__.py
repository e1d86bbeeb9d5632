"""Ways to the fleet: one module per carrier behind `ports.Link`, one conformance suite for all of them."""
