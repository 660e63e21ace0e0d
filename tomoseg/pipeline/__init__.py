"""A session through its stages: what is planned, done, written down and found again."""
