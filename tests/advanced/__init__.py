"""Tests of the advanced package."""
