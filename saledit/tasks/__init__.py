"""Tasks: how records become model inputs, and what counts as right."""
