"""The errors that tomoseg raises on purpose, each with its remedy.

A lower layer states the fact and the remedy; an upper layer says which tomogram or block it was
with :meth:`TomosegError.within`. All of them pickle, because they cross processes. What they say
goes into logs, pages and manifests, so no credential and no control character is in it.
"""

from __future__ import annotations

import errno
import traceback
from typing import Self

from tomoseg.core.redaction import one_line, redacted

_AWAY = {
    errno.ESTALE, errno.EIO, errno.EREMOTEIO, errno.ENODEV, errno.ENXIO, errno.ENOLINK, errno.EBUSY,
    errno.ENOTCONN, errno.ESHUTDOWN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN,
    errno.ENETUNREACH, errno.ENETRESET, errno.ETIMEDOUT,
}  # fmt: skip
"""What network drives, and clients of object storage, say while they are away."""


def is_away(error: BaseException) -> bool:
    """Tell whether an error says that a drive or a store does not answer."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in _AWAY


class TomosegError(Exception):
    """A failure with a known cause.

    Parameters
    ----------
    message
        What is wrong, the offending value and the bound.
    remedy
        What the person can do about it, as an imperative sentence.
    tomogram, block
        Where it happened, once an upper layer knows.
    """

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        tomogram: str = "",
        block: str = "",
    ) -> None:
        self.message = one_line(redacted(message))
        super().__init__(self.message)
        remedy = one_line(redacted(remedy))
        self.remedy = f"{remedy.rstrip('.')}." if remedy else ""
        self.tomogram = one_line(tomogram)
        self.block = block

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by value: keyword-only arguments do not survive the default."""
        values = (type(self), self.message, self.remedy, self.tomogram, self.block)
        return (_rebuild, values, {"__notes__": self._notes})

    def __str__(self) -> str:
        """Give tomogram, block, message and remedy in one line."""
        places = [self.tomogram, f"block {self.block}" if self.block else ""]
        where = ", ".join(place for place in places if place)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}. {self.remedy}" if self.remedy else text

    def within(self, *, tomogram: str = "", block: str = "") -> Self:
        """Return the same error with the place filled in where it was not known."""
        error = type(self)(
            self.message,
            remedy=self.remedy,
            tomogram=self.tomogram or tomogram,
            block=self.block or block,
        )
        for note in self._notes:
            error.add_note(note)
        return error

    def noting(self, cause: BaseException) -> Self:
        """Return this error with its cause's traceback as a note: causes cross no processes."""
        self.add_note("".join(traceback.format_exception(cause)).rstrip())
        return self

    @property
    def _notes(self) -> list[str]:
        return list(getattr(self, "__notes__", ()))


def _rebuild(
    kind: type[TomosegError], message: str, remedy: str, tomogram: str, block: str
) -> TomosegError:
    return kind(message, remedy=remedy, tomogram=tomogram, block=block)


class RequestError(TomosegError):
    """The request itself is wrong (recipe, paths, options): nothing was started."""


class MissingError(RequestError):
    """A file that is named is not there."""


class FormatError(TomosegError):
    """A file is not what it says it is, or is of a kind that is not read here."""


class VoxelSizeError(FormatError):
    """A voxel size is missing, absurd, or does not fit; it is never guessed."""


class ModelError(TomosegError):
    """A model and the tomogram, the recipe or its own card do not fit each other."""


class StoreError(TomosegError):
    """A store refused a read or a write (unaligned, missing, corrupt)."""


class AbsentError(StoreError):
    """A file that was to be read is not there."""


class AwayError(StoreError):
    """A drive or a store does not answer, which passes: no fault of what was read or written."""


class ClaimError(TomosegError):
    """Another run holds the output, or has taken it over."""


class ResourceError(TomosegError):
    """The machine ran out of something: disk, memory, workers, time."""


class FullDiskError(ResourceError):
    """Results do not fit on their disk: no fault of the tomogram's."""


class UnfitWorkerError(ResourceError):
    """A worker would compute otherwise than its run: with other code, another model or precision.

    The work goes to another worker, and it is no attempt of the block's.
    """


REFUSALS = (RequestError, FormatError, ModelError)
"""What no second try mends: said with its remedy, without a traceback."""


class BlockError(TomosegError):
    """A block failed as often as it may; its stage publishes nothing."""
