"""The results of an experiment: its run directories as rows of numbers, rows as series and tables."""
