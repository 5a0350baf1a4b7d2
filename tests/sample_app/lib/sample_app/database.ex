defmodule SampleApp.Database do
  @moduledoc """
  The PostgreSQL behind the release `shop`: what Ecto does for a generated Phoenix app, as far as a deploy meets it. A connection for
  each question, so there is nothing to keep alive.
  """
  require Logger

  @migrations [
                {20_260_101_000_000, "CreateItems",
                 "create table items (id serial primary key, name text); insert into items (name) values ('tea')"}
              ] ++
                if(System.get_env("SAMPLE_VERSION", "0.1.0") == "0.1.0",
                  do: [],
                  else: [
                    {20_260_201_000_000, "AddPrice",
                     "alter table items add column price integer not null default 3"}
                  ]
                )
  # What the page asks for: with an older schema it fails, whatever the health check says.
  @columns if System.get_env("SAMPLE_VERSION", "0.1.0") == "0.1.0",
             do: "id, name",
             else: "id, name, price"

  def configured?, do: Application.get_env(:sample_app, :database_url) != nil

  @doc "Rows of the last of some statements, as lists of texts: {:ok, rows} or {:error, message}."
  def query(statements) do
    with {:ok, connection} <- connect() do
      try do
        # One after the other: of what it has not been told, the server does nothing once this process is dead.
        Enum.reduce_while(List.wrap(statements), {:ok, []}, fn sql, _last ->
          answer = ask(connection, sql)
          {if(match?({:ok, _}, answer), do: :cont, else: :halt), answer}
        end)
      after
        :pgsql.terminate(connection)
      end
    end
  end

  def items, do: query("select #{@columns} from items order by id")

  @doc "The versions that have run."
  def migrated do
    case query("select version from schema_migrations order by version") do
      {:ok, rows} -> {:ok, Enum.map(rows, fn [version] -> String.to_integer(version) end)}
      error -> error
    end
  end

  @doc "Runs what is pending, says so as Ecto does, and returns the versions, as Ecto.Migrator.run/4 does."
  def migrate do
    create_table()
    {:ok, done} = migrated()

    for {version, name, sql} <- migrations(), version not in done do
      Logger.info("== Running #{version} Shop.Repo.Migrations.#{name}.change/0 forward")
      ask!(["begin", sql, "insert into schema_migrations values (#{version}, now())", "commit"])
      Logger.info("== Migrated #{version} in 0.0s")
      version
    end
  end

  def create_table do
    ask!(
      "create table if not exists schema_migrations (version bigint primary key, inserted_at timestamp)"
    )
  end

  @doc "{version, name, statement} of all that this release has."
  def migrations, do: @migrations ++ more()

  # One more migration, for the tests: one that raises, hangs, or needs a lock.
  defp more do
    case System.get_env("SAMPLE_MIGRATION") do
      nil -> []
      sql -> [{20_260_301_000_000, "OfTheTest", sql}]
    end
  end

  defp ask!(sql) do
    case query(sql) do
      {:ok, rows} -> rows
      {:error, message} -> raise message
    end
  end

  defp ask(connection, sql) do
    {:ok, results} = :pgsql.squery(connection, String.to_charlist(sql), :infinity)

    case Enum.find(results, &match?({:error, _}, &1)) do
      {:error, details} -> {:error, "PostgreSQL says: #{details[:message]}"}
      nil -> {:ok, results |> List.last() |> rows()}
    end
  end

  defp rows({_command, _fields, rows}),
    do: Enum.map(rows, fn row -> Enum.map(row, &to_string/1) end)

  defp rows(_command), do: []

  defp connect do
    uri = URI.parse(Application.fetch_env!(:sample_app, :database_url))
    [user, password] = String.split(uri.userinfo, ":")

    options = [
      host: String.to_charlist(uri.host),
      port: uri.port || 5432,
      database: String.trim_leading(uri.path, "/"),
      user: user,
      password: password,
      connect_timeout: 2000,
      as_binary: true
    ]

    # It links itself to who asks, and ends when it cannot log in.
    Process.flag(:trap_exit, true)

    case :pgsql.connect(options) do
      {:ok, connection} ->
        {:ok, connection}

      # As careless as an error can be: it tells the password.
      {:error, reason} ->
        {:error, "no connection to the database for #{user}:#{password}: #{why(reason)}"}
    end
  end

  defp why({:authentication, details}), do: details[:message]
  defp why({:init, {:error, reason}}), do: reason
  defp why(reason), do: inspect(reason)
end
