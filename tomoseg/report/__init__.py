"""What a person looks at afterwards: a picture a tomogram, a page a session.

Pure functions from plain values to bytes and text; whoever calls them reads the stores and writes
the files.
"""
