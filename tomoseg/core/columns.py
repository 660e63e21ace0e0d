"""Tables of what blocks find, as arrays with a row for each thing found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray


def column(dtype: DTypeLike, *axes: int) -> Any:
    """Declare a field of :class:`Columns`: of each row, an array of this shape."""
    return field(metadata={"empty": np.zeros((0, *axes), dtype)})


@dataclass(frozen=True, eq=False)
class Columns:
    """Arrays of one length; a subclass declares each with :func:`column`."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(next(iter(self.as_dict().values())))

    @classmethod
    def names(cls) -> list[str]:
        """Return what the arrays are called: files that lack one are of another version."""
        return [item.name for item in fields(cls)]

    def as_dict(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by name, for an .npz file."""
        return {name: getattr(self, name) for name in self.names()}

    @classmethod
    def from_dict(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the table that :meth:`as_dict` described."""
        return cls(**{name: np.asarray(arrays[name]) for name in cls.names()})

    @classmethod
    def none(cls) -> Self:
        """Return no rows."""
        return cls(**{item.name: item.metadata["empty"] for item in fields(cls)})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all blocks."""
        tables = [part.as_dict() for part in parts or [cls.none()]]
        return cls(**{name: np.concatenate([t[name] for t in tables]) for name in tables[0]})

    def select(self, rows: NDArray[np.generic]) -> Self:
        """Return some rows, by number or flagged, in that order."""
        return type(self)(**{name: values[rows] for name, values in self.as_dict().items()})
