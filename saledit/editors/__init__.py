"""Editors: from gradient factors to deltas."""
