"""Postgres: its URL, a connection, one that is kept, what it says when it fails."""
