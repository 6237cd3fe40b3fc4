"""What the frozen base decides, computed once and kept on disk: banks, and sums of moments."""
