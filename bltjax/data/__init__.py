"""Documents, splits, rows and batches: from any source to arrays on devices."""
