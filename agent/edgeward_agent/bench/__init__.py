"""`edgeward-agent bench`: how long an answer takes on this machine, how sure that is, and whether it makes a budget."""
