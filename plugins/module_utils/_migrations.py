# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which migrations of a database have run, and which a release still waits for. Pure; private to this collection.

A migration is named by its version (C(20260201000000)), with several repos by repo and version (C(Shop.Repo 20260201000000)). What is
known is kept for each release, as V(_types.Migrations).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import Migrations

# What bluegreen_migrations_command is by default: our own question, for a release that has ecto_sql in it.
AUTO = "auto"
LIBRARY = "ecto_sql"
_TELLS = "bluegreen-migration:"
# Read-only, and without the lock that a migration holds; only where the table is not there yet, Ecto makes it. From ecto_sql 3.14,
# Ecto.Migrator: with_repo/3 starts the repo and what it needs, migrations/3 gives {:up | :down, version, name of the file}, and
# knows :skip_table_creation and :migration_lock. A release has loaded none of its applications in `eval`, and an application that is not
# loaded has no environment.
ECTO = """
for path <- Path.wildcard(Path.join([System.fetch_env!("RELEASE_ROOT"), "lib", "*", "ebin", "*.app"])),
    do: Application.load(String.to_atom(Path.basename(path, ".app")))

repos = for {app, _, _} <- Application.loaded_applications(), repo <- Application.get_env(app, :ecto_repos, []), uniq: true, do: repo

for repo <- repos do
  ask = fn repo ->
    paths = [Ecto.Migrator.migrations_path(repo)]

    try do
      Ecto.Migrator.migrations(repo, paths, skip_table_creation: true, migration_lock: false, log: false)
    rescue
      _no_table -> Ecto.Migrator.migrations(repo, paths, log: false)
    end
  end

  {:ok, migrations, _started} = Ecto.Migrator.with_repo(repo, ask, pool_size: 2)

  for {state, version, name} <- migrations,
      do: IO.puts("\\n" <> "bluegreen-migration: #{inspect(repo)} #{state} #{version} #{name}")
end

IO.puts("\\n" <> "bluegreen-migration: asked #{length(repos)}")
"""


def from_ecto(output: Iterable[str]) -> Migrations | None:
    """What C(ECTO) has printed, among other lines; V(None) if it did not come to its end."""
    told = [line[len(_TELLS) :].split(maxsplit=3) for line in output if line.startswith(_TELLS)]
    if not told or told[-1][0] != "asked":
        return None
    entries = told[:-1]
    several = len({entry[0] for entry in entries}) > 1
    ran: list[str] = []
    files: dict[str, str] = {}
    for repo, state, version, name in entries:
        known_as = f"{repo} {version}" if several else version
        if state == "up":
            ran.append(known_as)
        # Ecto says so of a migration that has run, and that this release does not have.
        if name != "** FILE NOT FOUND **":
            files[known_as] = name
    return {"ran": ran, "files": files}


def from_versions(output: Iterable[str]) -> Migrations:
    """What an expression of the user's own has printed: the versions of those that have run."""
    return {"ran": [line.strip() for line in output if line.strip()], "files": None}


def as_kept(found: object) -> Migrations | None:
    """What the file of a release says; V(None) if that is nothing of ours. Version 0.1.0 kept a list of those that had run."""
    if isinstance(found, list):
        return {"ran": [str(version) for version in found], "files": None}
    if isinstance(found, dict) and isinstance(found.get("ran"), list):
        return found  # type: ignore[return-value]
    return None


def latest(kept: Mapping[str, Migrations]) -> list[str] | None:
    """The migrations that had run when somebody last looked; V(None) if nobody did."""
    if not kept:
        return None
    return max(kept.values(), key=lambda record: record.get("at") or "")["ran"]


def pending(release: str | None, kept: Mapping[str, Migrations]) -> list[str]:
    """Names of the migrations that a release has and the database has not, as far as that is known.

    :param kept: release to what is known of its migrations.
    """
    record, ran = kept.get(release or ""), latest(kept)
    return [] if record is None or ran is None else waiting(record, ran)


def waiting(record: Migrations, ran: Container[str]) -> list[str]:
    """Names of the migrations of a release that are not among those that have run."""
    return [named(version, record) for version in record["files"] or {} if version not in ran]


def since(live: str | None, release: str | None, kept: Mapping[str, Migrations]) -> list[str]:
    """Names of the migrations that have run, that the live release knows, and another release does not; none where either is not known."""
    now, then = kept.get(live or ""), kept.get(release or "")
    if not now or not then:
        return []
    if now["files"] is None or then["files"] is None:
        return [version for version in now["ran"] if version not in then["ran"]]
    ran = latest(kept) or []
    return [named(version, now) for version in now["files"] if version in ran and version not in then["files"]]


def named(version: str, record: Migrations) -> str:
    """The name of a migration's file, as far as it is known: C(20260201000000_add_price)."""
    name = (record["files"] or {}).get(version)
    return f"{version}_{name}" if name else version
