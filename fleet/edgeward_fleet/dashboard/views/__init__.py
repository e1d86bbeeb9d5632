"""What pages show, as values made by pure functions; the templates only write it down."""
