"""Entropies of text ahead of training, kept beside it, and thresholds of patches from them."""
