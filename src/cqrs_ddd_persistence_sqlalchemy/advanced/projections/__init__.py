"""Projections: read models, each in a table of its own."""
