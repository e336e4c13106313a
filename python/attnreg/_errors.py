"""The exceptions and warnings of the package; the text is the library's."""


class Error(Exception):
    """Base of what attnreg raises.

    Attributes
    ----------
    exit_code : int
        With what code the program `attnreg` ends for it (docs/program.md).
    """

    exit_code = 9


class DataError(Error, ValueError):
    """An array or a file does not describe a problem; the message says where, what was found and what is expected."""

    exit_code = 3


class UsageError(Error, ValueError):
    """An argument has a value that there is not."""

    exit_code = 2


class LimitError(Error):
    """Ended by a limit before there was a result."""

    exit_code = 4


class NotFiniteError(Error, ArithmeticError):
    """A result without a status of its own overflows, or is not a number."""

    exit_code = 5


class OutputError(Error, OSError):
    """A file could not be written; an older one is still there."""

    exit_code = 6


class OutOfMemoryError(Error, MemoryError):
    """The problem does not fit; the message has the bytes needed and those there."""

    exit_code = 7


class InternalError(Error, RuntimeError):
    """A bug of attnreg, or MPI failed."""

    exit_code = 9


class CopyWarning(UserWarning):
    """An array had to be copied: its layout or type is none that attnreg reads in place."""


_CLASSES = {kind.exit_code: kind for kind in (UsageError, DataError, LimitError, NotFiniteError, OutputError,
                                              OutOfMemoryError, InternalError)}


def error_of(code, text):
    """The exception for an exit code of the library."""
    return _CLASSES.get(code, InternalError)(text)


def code_of(error):
    """The exit code that stands for an exception of any kind, when ranks agree on it."""
    if isinstance(error, Error):
        return error.exit_code
    return OutOfMemoryError.exit_code if isinstance(error, MemoryError) else UsageError.exit_code
