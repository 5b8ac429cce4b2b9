"""Bits per byte of whole documents, in windows that overlap."""
