defmodule SampleApp.Release do
  @moduledoc "What `bin/sample_app eval` calls: the name and the place that the Ecto documentation gives it."

  def migrate do
    Application.load(:sample_app)
    if System.get_env("SAMPLE_FAIL_MIGRATION"), do: raise("the sample was told not to migrate")

    case System.get_env("SAMPLE_DATABASE") do
      nil -> :ok
      path -> File.write!(path, "migrated by #{SampleApp.version()}\n", [:append])
    end

    IO.puts("migrated by #{SampleApp.version()}")
  end
end

# The default of bluegreen_migrate_command for the release shop: what the Ecto documentation tells to write, and what it returns.
defmodule Shop.Release do
  @moduledoc false
  def migrate do
    {:ok, _} = Application.ensure_all_started(:p1_pgsql)
    Application.load(:sample_app)
    [{:ok, SampleApp.Database.migrate(), []}]
  end

  @doc "For bluegreen_migrations_command: the versions that have run, one on a line."
  def migrations do
    {:ok, _} = Application.ensure_all_started(:p1_pgsql)
    Application.load(:sample_app)
    {:ok, versions} = SampleApp.Database.migrated()
    Enum.each(versions, &IO.puts/1)
  end
end

# What Ecto.Migrator, as it stands in for the real one, wants of a repo.
defmodule Shop.Repo do
  @moduledoc false
  alias SampleApp.Database

  def start do
    if System.get_env("SAMPLE_NO_REPO"), do: raise("the sample was told to have no repo")
    Application.ensure_all_started(:p1_pgsql)
  end

  def create_table, do: Database.create_table()

  def versions do
    case Database.migrated() do
      {:ok, versions} -> versions
      {:error, message} -> raise message
    end
  end

  def files(_path) do
    for {version, name, _sql} <- Database.migrations(), do: {version, Macro.underscore(name)}
  end
end

# The default of bluegreen_migrate_command for the release other_app.
defmodule OtherApp.Release do
  @moduledoc false
  defdelegate migrate, to: SampleApp.Release
end
