"""Tomograms in; segmentations, traced filaments and particle coordinates out."""

__version__ = "0.1.0"
