"""Puts runs on machines. Each launcher is thin: it starts processes and prints what it would do."""
