"""One module of routes per part of the dashboard."""
