"""Whether an error of Postgres is transient: a lost connection, a shutdown, a lack of resources."""

import psycopg2

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
