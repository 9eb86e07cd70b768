"""Background jobs: their repository, and what workers do with them."""
