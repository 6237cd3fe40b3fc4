"""Failures as facts: the key that stands for each, and the value that is wanted there."""
