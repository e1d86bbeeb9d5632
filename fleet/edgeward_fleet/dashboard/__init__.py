"""The dashboard: server-drawn pages on the admin port. Every page reads without JavaScript; scripts only refresh it."""
