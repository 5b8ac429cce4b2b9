"""Figures of runs, drawn with matplotlib: curves, scores, and what hovering over a point shows."""
