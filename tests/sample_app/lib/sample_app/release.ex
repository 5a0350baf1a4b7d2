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

# The default of bluegreen_migrate_command for the release other_app.
defmodule OtherApp.Release do
  @moduledoc false
  defdelegate migrate, to: SampleApp.Release
end
