"""What the stores cost above the raw drivers: `make bench`."""
