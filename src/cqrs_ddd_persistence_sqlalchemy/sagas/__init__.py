"""Sagas from the command line, for the person on call."""
