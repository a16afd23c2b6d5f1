"""The two ways in which a command ends with one clear line instead of a traceback."""


class UsageError(RuntimeError):
    """The user's input or machine cannot do what was asked (exit status 2). The message is one line."""


class CheckError(RuntimeError):
    """What was checked did not hold: a corrupt pack, a golden mismatch (exit status 3). One line."""
