defmodule Ecto.Migrator do
  @moduledoc """
  Stands in for Ecto's, which only Hex has: the functions that bluegreen_migrations_command `auto` calls, with the same arguments and
  answers (ecto_sql 3.14, lib/ecto/migrator.ex). A repo is a module with `files/1`, `versions/0` and `create_table/0`.
  """

  def migrations_path(repo), do: inspect(repo)

  @doc "Calls the function with the repo started: {:ok, what it gave, started applications}."
  def with_repo(repo, fun, _opts \\ []) do
    {:ok, started} = repo.start()
    {:ok, fun.(repo), started}
  end

  @doc """
  {:up | :down, version, name} of all migrations. Without `skip_table_creation` the table is made if it is missing; with it, a table that
  is missing raises.
  """
  def migrations(repo, [path], opts \\ []) do
    unless opts[:skip_table_creation], do: repo.create_table()
    versions = repo.versions()
    files = repo.files(path)
    known = for {version, _name} <- files, do: version

    with_file =
      for {version, name} <- files,
          do: {if(version in versions, do: :up, else: :down), version, name}

    without_file = for version <- versions -- known, do: {:up, version, "** FILE NOT FOUND **"}
    Enum.sort_by(with_file ++ without_file, &elem(&1, 1))
  end
end
