"""What the BLT paper printed (arXiv 2412.09871), and our runs beside it."""
