"""What runs in the background: the runner of projections, and what those of sagas and jobs share with it."""
