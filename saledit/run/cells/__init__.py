"""Cells of a comparison: editors by seeds by schedules, each in a process of its own."""
