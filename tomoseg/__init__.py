"""Tomograms in; segmentations, traced filaments and particle coordinates out."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "open_tomogram"]


def __getattr__(name: str) -> Any:
    """Import what is heavy only when it is asked for."""
    if name == "open_tomogram":
        from tomoseg.io.lazy import open_tomogram

        return open_tomogram
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
