"""The report of an experiment: findings, tables and figures, as files and as one page."""
