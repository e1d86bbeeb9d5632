"""What the claims about speed and memory rest on: each compares with a baseline measured in the same run."""
