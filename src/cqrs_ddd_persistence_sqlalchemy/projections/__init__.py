"""The command line for the person on call: `python -m cqrs_ddd_persistence_sqlalchemy.projections`."""
