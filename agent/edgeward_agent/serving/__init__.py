"""The serving process: answers inference requests, and does nothing else.

No disk after loading, no TLS, no cloud: Python work beside the loop costs milliseconds at p99, so all of that lives
in the control process. `main` is the program; `local` runs the same machinery on a laptop without a fleet.
"""
