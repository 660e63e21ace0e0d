"""One door a format: what a file says becomes our values, and the other way round.

Readers and writers receive open, seekable binary files; who opened them, and where, is not known
here. xyz exists only inside this package.
"""
