"""Steps from one schema to the next; see `db/migrate.py`. A released step is never edited."""
