"""Projections that run themselves: leases, batches, poison events, and what the person on call sees of them."""
