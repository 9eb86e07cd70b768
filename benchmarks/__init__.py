"""The stores beside the raw drivers and beside their peers: `make bench`."""
