"""Layer pickers: which layer an editor should change."""
