"""Attention, patch cross-attention and table look-ups: a plain reference of each, one way per platform."""
