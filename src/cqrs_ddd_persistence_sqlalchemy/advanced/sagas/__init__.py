"""Sagas: their repository, and what runs them."""
