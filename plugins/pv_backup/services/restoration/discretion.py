"""PostgreSQL's words without the rows that they quote: an error is sent to people and stands in the evidence for good.

What a person needs stays: the message, and the names of relations, columns, roles and the like. Other quoted text may
be somebody's data, so it is blanked; so are DETAIL, CONTEXT and the statement, but for the few that have none.
Source: https://www.postgresql.org/docs/15/error-style-guide.html, https://www.postgresql.org/docs/15/libpq-exec.html.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final

import psycopg

# A quoted text behind one of these is a name, not a value.
_NAMED: Final = re.compile(
    r"(?:\b(?:relation|table|column|attribute|index|constraint|role|user|database|schema|extension|tablespace|type"
    r"|function|procedure|aggregate|operator|class|family|view|sequence|collation|locale|encoding|language|trigger|rule"
    r"|policy|publication|subscription|server|wrapper|domain|partition|method|conversion|dictionary|parser|template"
    r"|parameter|file|directory|library|module|program|socket|server at|background worker|cursor|restore point|touch)"
    r"|\b(?:locale|role|database) name:?) $"
)
# What PostgreSQL goes on with behind a value that it quoted.
_GOES_ON: Final = re.compile(r'(?: (?:is|does|has|of|for|in|at|from|not|already|cannot)\b[^"]*)?[.,;:)]?')
_LABEL: Final = re.compile(
    r"(?:^|(?<=\s))(?:(ERROR|FATAL|PANIC|LOG|WARNING|NOTICE|INFO|DEBUG\d?|DETAIL|HINT|CONTEXT|QUERY|STATEMENT|LOCATION)"
    r":  |(Command was|Query was|LINE) ?(?:\d+)?: ?)"
)
_MESSAGES: Final = frozenset({"ERROR", "FATAL", "PANIC", "LOG"})
# How a line begins that no row can have begun, short of a forgery.
_BEGINS: Final = re.compile(
    r"pg_restore: |pg_dump: |psql:|pg_amcheck: |\d{4}-\d\d-\d\d \d\d:\d\d|(?:heap table|btree index) \""
)
_STATEMENT: Final = re.compile(r"\b(?:statement|(?:execute|parse|bind|fetch from) .*?): ")
_VERB: Final = re.compile(r"[A-Z]+(?: [A-Z]+)*\b")
_SAFE_DETAIL: Final = re.compile(
    # Of amcheck, of recovery, of the start, of CREATE EXTENSION.
    r"(?:Index|Lower|Higher|Last|Target|Block|Leaf|Downlink)\b[\w (),=/.]*(?:tid|block|lsn|level)="
    r"|\w+ = \S+ is a lower setting|The (?:data directory|database) |Could not open extension control file "
)
_SAFE_CONTEXT: Final = re.compile(
    r"COPY .*?, line \d+(?:, column [^:\"]+)?|WAL redo at \S+ for [^\s/]+/\w+"
    r"|PL/\w+ (?:anonymous code|function \w[^\"']*)"
)
_RAISED: Final = re.compile(r"\bat (?:RAISE|ASSERT)\b|^PL/(?!pgSQL)")
_PL_SOURCES: Final = ("pl_exec", "plpy", "plperl", "pltcl")
_OWN_WORDS: Final = "the database's own code raised an error, whose words may quote a row"


class Discretion:
    """Hears a program line by line and keeps what may be repeated.

    :param kept: gets the lines.
    :param is_server: whether it is a server's log, where a tab begins each line that goes on.
    """

    def __init__(self, kept: deque[str], *, is_server: bool = False) -> None:
        self._kept = kept
        self._is_server = is_server
        # Whether a line without label goes on with what is not repeated, and whether one did.
        self._may_go_on = False
        self._went_on = False

    def hear(self, text: str) -> None:
        """Keep of the next line what may be repeated."""
        begins = not text.startswith("\t") if self._is_server else _BEGINS.match(text) is not None
        label = _LABEL.search(text) if begins else _LABEL.match(text.lstrip())
        kind = next(filter(None, label.groups())) if label else ""
        # Of these, what is kept can't be a row's, even if a row looks like one.
        is_safe = kind in ("CONTEXT", "Command was")
        if self._may_go_on and not begins and not is_safe and (not kind or kind in _MESSAGES or self._went_on):
            self._went_on = True
            return
        self._went_on = False
        if label is None:
            self._keep(text)
            return
        lead = text[: len(text) - len(label.string) + label.end()]
        self._keep_labelled(kind, lead, label.string[label.end() :])

    def _keep_labelled(self, kind: str, lead: str, words: str) -> None:
        if kind in _MESSAGES and (statement := _STATEMENT.search(words)) and kind == "LOG":
            self._keep(f"{lead}{words[: statement.end()]}…")
        elif kind in _MESSAGES or kind == "HINT" or (kind == "DETAIL" and _SAFE_DETAIL.match(words)):
            self._keep(lead + words)
        elif kind == "CONTEXT":
            if _RAISED.search(words):
                self._take_back()
            if safe := _SAFE_CONTEXT.match(words):
                self._kept.append(f"{lead}{safe[0]} …")
        elif kind == "Command was" and (verb := _VERB.match(words)):
            self._kept.append(f"{lead}{verb[0]} …")
        self._may_go_on = True

    def _keep(self, text: str) -> None:
        blanked, is_open = _blanked(text)
        if blanked:
            self._kept.append(blanked)
        self._may_go_on = is_open

    def _take_back(self) -> None:
        """That a message was the code's own is told behind it."""
        while self._kept:
            label = _LABEL.search(self._kept[-1])
            line = self._kept.pop()
            if label and label[1] in _MESSAGES:
                self._kept.append(line[: label.end()] + _OWN_WORDS)
                return


def _blanked(text: str) -> tuple[str, bool]:
    """The line without quoted values, and whether one may go on in the next line."""
    at = 0
    while (opening := text.find('"', at)) >= 0:
        closing = text.find('"', opening + 1)
        if closing >= 0 and _NAMED.search(text, at, opening):
            at = closing + 1
            continue
        # A value may hold quotes itself: it ends with the last one, if PostgreSQL goes on there.
        last = text.rfind('"')
        rest = text[last + 1 :]
        if last > opening and _GOES_ON.fullmatch(rest):
            return f'{text[:opening]}"…"{rest}', False
        return f'{text[:opening]}"…', True
    return text, False


def without_rows(text: str) -> str:
    """The words of a program or of libpq that may be repeated."""
    kept: deque[str] = deque()
    discretion = Discretion(kept)
    for line in text.splitlines():
        discretion.hear(line.rstrip())
    return "\n".join(kept)


def told(error: psycopg.Error, *, asked: bool = False) -> str:
    """An error of a query as it may be repeated, in one line: message, names, SQLSTATE.

    :param asked: whether the query is text that its reader knows: what PostgreSQL quotes of it stays.
    """
    diag = error.diag
    if diag.message_primary is None:  # of libpq or psycopg: a connection that failed
        return " ".join(without_rows(str(error)).split())
    state = f"SQLSTATE {diag.sqlstate}"
    if diag.sqlstate == "P0001" or (diag.source_file or "").startswith(_PL_SOURCES):
        return f"{_OWN_WORDS} ({state})"
    # A position is given for what the parser found in the query itself, and for nothing that it read in a row.
    of_the_query = asked and diag.statement_position is not None
    message = " ".join(diag.message_primary.split())
    message = message if of_the_query else _blanked(message)[0]
    names = (
        ("schema", diag.schema_name),
        ("table", diag.table_name),
        ("column", diag.column_name),
        ("type", diag.datatype_name),
        ("constraint", diag.constraint_name),
    )
    return f"{message} ({', '.join([state, *(f'{kind} {name}' for kind, name in names if name)])})"
