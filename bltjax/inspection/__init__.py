"""What a person looks at: patches of a text, rows of a run, and their page."""
