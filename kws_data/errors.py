"""The one exception type that means 'the user's input is wrong', shown as a single line without a traceback."""


class KwsError(Exception):
    """A user's mistake: the message is one line that says what was wrong, where, and what would be right."""
