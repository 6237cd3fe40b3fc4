"""Data: records, splits, episodes and rewordings."""
