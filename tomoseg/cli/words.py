"""What the commands have in common: exit codes and how values are said."""

DONE, SOME_FAILED, WRONG_REQUEST = 0, 1, 2


def number(value: float | int | None) -> str:
    """Return a score for people; a dash where there is none."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
