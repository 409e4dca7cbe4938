"""The one exception type that means 'the user's input is wrong', shown as a single line without a traceback."""

from collections.abc import Sequence


class KwsError(Exception):
    """A user's mistake. The message is one line: what was wrong, where, and what would be right."""


def shortened(names: Sequence[str], most: int = 10) -> str:
    """The first of some names, for a message, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
