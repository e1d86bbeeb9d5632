"""What the agent and the fleet agree on. Standard library only, no I/O, no clock.

`mqtt` is the exception, and docs/adr/0006 says why: it speaks to a broker, with the extra `mqtt`.
"""
