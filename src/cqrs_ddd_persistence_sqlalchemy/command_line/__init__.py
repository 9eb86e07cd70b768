"""What the commands share: their database, their errors, what they print."""
