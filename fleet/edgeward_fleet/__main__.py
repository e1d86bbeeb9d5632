"""`edgeward-fleet` and `python -m edgeward_fleet`."""

from __future__ import annotations

from edgeward_contract.extras import load


def main() -> None:
    """Entry point of the console script; says in one line when the extra `fleet` is not installed."""
    load("edgeward_fleet.commands", extra="fleet").run()


if __name__ == "__main__":
    main()
