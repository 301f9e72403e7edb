"""The one kind of error that is the user's to mend."""


class UserError(Exception):
    """Something the user can put right; the message is one line with the place, the value and the remedy.

    Commands and stages print it without a traceback and exit with `EXIT_CODE`.
    """

    EXIT_CODE = 2
