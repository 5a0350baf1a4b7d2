# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of the database of an app, for a rehearsal. Private to this collection.

Which database that is the app is told by its environment: C(DATABASE_URL) of PostgreSQL, C(DATABASE_PATH) of SQLite, as the generators of
Phoenix have it (phx.new 1.8, C(--database)).
"""

from __future__ import annotations

import os
import re
import sys
import urllib.parse
from collections.abc import Mapping
from typing import Callable, NamedTuple

from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure

AUTO = "auto"
_SCHEMES = ("ecto", "postgres", "postgresql")
# Bytes of a name that PostgreSQL keeps (NAMEDATALEN less one, 63).
_NAME_BYTES = 63
_NO_TOOLS = ". The rehearsal needs psql and pg_dump (apt install postgresql-client), or bluegreen_rehearsal_command"
# Not a new and empty one, if there is none.
_COPY_SQLITE = (
    "import sqlite3, sys, urllib.parse; a = sqlite3.connect('file:' + urllib.parse.quote(sys.argv[1]) + '?mode=rw', uri=True); "
    "b = sqlite3.connect(sys.argv[2]); a.backup(b); b.close()"
)
# Values that lead to a database which "auto" would not copy, and the migration would find.
_OTHER = re.compile(r"\A(ecto|postgres|postgresql|mysql2?|mariadb|mssql|tds|sqlite3?)://")
# Runs a program as the app's user with these variables: (exit status, its output), as V(_service.run_as_app).
Run = Callable[[list[str], Mapping[str, str]], tuple[int, str]]


class Postgres(NamedTuple):
    """A database of PostgreSQL."""

    url: str
    name: str
    # For libpq, so that no password is in a command line.
    env: dict[str, str]
    copy_name: str

    def copy_url(self) -> str:
        parts = urllib.parse.urlsplit(self.url)
        return urllib.parse.urlunsplit(parts._replace(path="/" + urllib.parse.quote(self.copy_name)))


def postgres(url: str, app: str) -> Postgres:
    """What a C(DATABASE_URL) says. Raises: Failure, without the URL, which has a password.

    :param app: whose copy it is to be: several apps may use one database.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, port, user, password = parts.hostname, parts.port, parts.username, parts.password
    except ValueError:
        raise Failure("DATABASE_URL is not a URL (its value is not shown)") from None
    name = urllib.parse.unquote(parts.path.lstrip("/"))
    if parts.scheme not in _SCHEMES or not name:
        raise Failure(
            "DATABASE_URL is not one of PostgreSQL (ecto://USER:PASSWORD@HOST/DATABASE), so the rehearsal does not know how to copy the "
            "database. Set bluegreen_rehearsal_command."
        )
    query = dict(urllib.parse.parse_qsl(parts.query))
    found = {
        "PGHOST": query.get("socket_dir") or host,
        "PGPORT": str(port) if port else None,
        "PGUSER": urllib.parse.unquote(user) if user else None,
        "PGPASSWORD": urllib.parse.unquote(password) if password else None,
        "PGSSLMODE": "require" if query.get("ssl") == "true" else None,
    }
    end = f"_{app}_rehearsal"
    copy_name = name.encode()[: _NAME_BYTES - len(end)].decode("utf-8", "ignore") + end
    return Postgres(url, name, {key: value for key, value in found.items() if value}, copy_name)


def quoted_name(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


class Copy:
    """A copy of a database, and what has to be set for an app to use it."""

    def __init__(
        self,
        app: str,
        env: Mapping[str, str],
        command: str,
        folder: str,
        base: str,
        run: Run,
        redact: Callable[[str], str],
    ) -> None:
        """:param env: environment of the app.
        :param folder: a directory that the app's user may write to.
        :param base: where the app runs, for a path that is relative.
        """
        self.app, self.env, self.command = app, env, command.strip()
        self.folder, self.base, self._run, self.redact = folder, base, run, redact
        # Nothing is dropped that this did not make.
        self.made = False

    def run(self, words: list[str], env: Mapping[str, str], what: str, hint: str = "") -> str:
        """What a program printed. Raises: Failure."""
        try:
            rc, text = self._run(words, env)
        except FileNotFoundError:
            raise Failure(f"{what}: there is no {words[0]} on this host{hint}") from None
        if rc:
            lines = [f"    {line}" for line in self.redact(text).splitlines() if line.strip()][-10:]
            raise Failure("\n".join([f"{what} failed{hint}:", *lines]))
        return text

    def make(self) -> dict[str, str]:
        """Make it, in place of one that is left over. Returns the variables that lead an app to it. Raises: Failure."""
        if self.command != AUTO:
            return self._make_own()
        names = [name for name in ("DATABASE_URL", "DATABASE_PATH") if name in self.env]
        if not names:
            raise Failure(
                "the environment of the app has neither DATABASE_URL nor DATABASE_PATH, so the rehearsal does not know its database. Set "
                "bluegreen_rehearsal_command."
            )
        others = names[1:] + [name for name in sorted(self.env) if name != names[0] and _OTHER.match(self.env[name])]
        if others:
            raise Failure(
                f"{others[0]} is a database, too, beside {names[0]}, and the rehearsal would migrate the real one. Set "
                "bluegreen_rehearsal_command, which copies both."
            )
        if names[0] == "DATABASE_PATH":
            path, copy = os.path.join(self.base, self.env["DATABASE_PATH"]), f"{self.folder}/copy.db"
            self.run([sys.executable, "-c", _COPY_SQLITE, path, copy], {}, "copying the database")
            return {"DATABASE_PATH": copy}
        return self._make_postgres(postgres(self.env["DATABASE_URL"], self.app))

    def _make_own(self) -> dict[str, str]:
        self.made = True
        text = self.run(self._own("copy"), self.env, "bluegreen_rehearsal_command copy")
        pairs = [line.strip().partition("=") for line in text.splitlines() if "=" in line]
        found = {name: value for name, _equals, value in pairs if name in self.env and value != self.env[name]}
        if not found:
            raise Failure(
                "bluegreen_rehearsal_command copy printed no NAME=VALUE that changes a variable of the app, so the rehearsal would use the "
                "real database. Print what leads to the copy, such as DATABASE_URL=…"
            )
        return found

    def _own(self, what: str) -> list[str]:
        return ["/bin/sh", "-c", f'{self.command} "$@"', "sh", what]

    def _mark(self) -> str:
        return f"beamops.bluegreen: rehearsal of {self.app}"

    def _make_postgres(self, source: Postgres) -> dict[str, str]:
        told = (
            f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = {literal(source.copy_name)}"
        )
        there = self._psql(source, told, "looking for a copy of the database", _NO_TOOLS)
        if there.strip() == self._mark():
            self._drop_postgres(source)
        elif there:
            raise Failure(
                f"there is a database {source.copy_name} that no rehearsal has made. Rename it, or set bluegreen_rehearsal_command."
            )
        copy = quoted_name(source.copy_name)
        hint = f". The rehearsal needs a role that may create one: ALTER ROLE {source.env.get('PGUSER', '…')} CREATEDB"
        self._psql(source, f"CREATE DATABASE {copy} TEMPLATE template0", "creating the copy of the database", hint)
        self.made = True
        self._psql(source, f"COMMENT ON DATABASE {copy} IS {literal(self._mark())}", "marking the copy of the database")
        # A dump that fails has to fail as a whole, and a pipe in sh has the status of its end. A pg_dump that is newer than its server
        # sets what that does not know (transaction_timeout, since 17).
        script = (
            "{ pg_dump --no-owner --no-acl \"$1\" || echo 'the dump failed;'; } | sed '1,40{/^SET transaction_timeout/d}' "
            '| psql -Xq -v ON_ERROR_STOP=1 -d "$2"'
        )
        words = ["/bin/sh", "-c", script, "sh", source.name, source.copy_name]
        self.run(words, source.env, "copying the database with pg_dump", " (or set bluegreen_rehearsal_command)")
        return {"DATABASE_URL": source.copy_url()}

    def _psql(self, source: Postgres, statement: str, what: str, hint: str = "") -> str:
        return self.run(
            ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", source.name, "-c", statement], source.env, what, hint
        )

    def _drop_postgres(self, source: Postgres) -> None:
        # A migration that was killed goes on in the server, which does not drop what somebody uses. Of the server's own workers it takes
        # care by itself, and nobody else may end them.
        used = f"datname = {literal(source.copy_name)} AND usename = current_user"
        end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {used}"
        self._psql(source, end, "ending what uses the copy of the database")
        drop = f"DROP DATABASE IF EXISTS {quoted_name(source.copy_name)}"
        self._psql(source, drop, "removing the copy of the database")

    def drop(self) -> None:
        """Raises: Failure. What is in V(folder) goes with it."""
        if not self.made:
            return
        if self.command != AUTO:
            self.run(self._own("drop"), self.env, "bluegreen_rehearsal_command drop")
        else:
            self._drop_postgres(postgres(self.env["DATABASE_URL"], self.app))
