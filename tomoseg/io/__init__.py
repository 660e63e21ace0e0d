"""Volumes by boxes, points by dialects, and stores; alone imports zarr and fsspec."""
