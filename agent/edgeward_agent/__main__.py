"""`python -m edgeward_agent`: the same command for programs that start the agent with their own interpreter."""

from edgeward_agent.cli import main

main()
