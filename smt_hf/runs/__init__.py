"""What a run leaves behind: files that are whole or absent, its figures, and the table of results."""
