"""The ways on which devices reach the fleet. `inbound` is what every one of them calls; the rest are adapters."""
