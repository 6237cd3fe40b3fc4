"""Edited models judged: what is right, what it cost, and the counts of both."""
