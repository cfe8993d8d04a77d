"""A list in, one row for each of its rows out: resumable, polite, nothing twice, nothing lost."""
