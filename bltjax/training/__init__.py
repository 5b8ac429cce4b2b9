"""The train step, its optimizer, the loop around it, checkpoints and metrics."""
