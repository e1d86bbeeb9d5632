"""The outbox: what happened on the device, kept safe until the fleet has said that it has it."""
