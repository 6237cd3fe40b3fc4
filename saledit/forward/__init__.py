"""Forward passes of parts of a model: suffixes, rows of many edits at once, tails."""
