"""The fleet's database: schema, engine, migrations."""
