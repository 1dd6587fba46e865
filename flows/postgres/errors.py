"""What an error of Postgres means: whether it is transient, and what a missing privilege needs."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
import psycopg2.errors

from flows.errors import ConfigurationError, UnavailableError

# SQLSTATE classes: lost connections, rollbacks, resources, shutdowns, I/O
# (https://www.postgresql.org/docs/current/errcodes-appendix.html).
TRANSIENT_SQLSTATES = ("08", "40", "53", "57P", "58")
# In messages of dbt, which reports no SQLSTATE.
_TRANSIENT_TEXTS = (
    "could not connect",
    "connection refused",
    "no such file or directory",
    "server closed the connection",
    "connection already closed",
    "terminating connection",
    "the database system is",
    "remaining connection slots",
    "too many clients",
    "deadlock detected",
)


def is_transient(error: psycopg2.Error) -> bool:
    """Whether a retry can succeed; for lost connections, psycopg2 sets no SQLSTATE."""
    if error.pgcode is not None:
        return error.pgcode.startswith(TRANSIENT_SQLSTATES)
    lost = (psycopg2.OperationalError, psycopg2.DatabaseError, psycopg2.InterfaceError)
    return type(error) in lost


def is_transient_text(message: str) -> bool:
    """Whether a message of dbt states that it could not reach Postgres, or lost the connection."""
    return any(words in message.lower() for words in _TRANSIENT_TEXTS)


def missing_privilege(what: str, owned: str, error: psycopg2.Error) -> ConfigurationError:
    """The error to raise for statements of loads whose role lacks a privilege.

    Args:
        what: what failed, the message's first words.
        owned: the schemas that the role has to own with everything in them.
        error: what Postgres said.
    """
    return ConfigurationError(
        f"{what}: the database role lacks a privilege: {' '.join(str(error).split())}. It has to "
        f"own {owned}; docs/loading.md lists the grants. If another role made them, log in as that "
        'one, or hand them over with blocks/roles.sql (docs/transform.md, "Who may do what").'
    )


@contextmanager
def naming_errors(what: str, action: str) -> Iterator[None]:
    """Turn errors of statements on the schema `elt` into ours, which name the remedy.

    Args:
        what: what needs the statement, the message's first words.
        action: what was going on, after "while".

    Raises:
        ConfigurationError: the role lacks a privilege.
        UnavailableError: Postgres went away.
    """
    try:
        yield
    except psycopg2.errors.InsufficientPrivilege as error:
        raise missing_privilege(what, "the schema elt", error) from error
    except psycopg2.Error as error:
        if not is_transient(error):
            raise
        raise UnavailableError(
            f"Postgres went away while {action}: {error} Run this again."
        ) from error
