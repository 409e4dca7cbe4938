"""The one exception type that means 'the user's input is wrong', shown as a single line without a traceback."""


class KwsError(Exception):
    """A user's mistake. The message is one line: what was wrong, where, and what would be right."""
