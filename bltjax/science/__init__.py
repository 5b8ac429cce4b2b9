"""Statistics of scaling laws: arrays in, numbers out. Imports nothing of bltjax."""
