"""Volumes as programs write them, read by ranges of bytes and written as a stream."""
