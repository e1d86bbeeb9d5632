"""What pages ask of the database beyond what the services offer: overviews, in a few queries each. Reads only."""
