"""Run directories, locks between processes, and files that appear whole or not at all."""
