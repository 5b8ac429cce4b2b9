"""An experiment as a whole: sizes and budgets become runs, planned, run as jobs, and watched."""
