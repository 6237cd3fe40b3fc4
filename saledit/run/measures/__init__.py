"""What is measured of edited models: mended, broken, said, written, and along a sequence."""
