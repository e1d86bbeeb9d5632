"""The fleet over HTTP: one router per resource, pydantic at this edge and nowhere else."""
