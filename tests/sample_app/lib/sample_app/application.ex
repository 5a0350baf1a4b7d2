defmodule SampleApp.Application do
  @moduledoc "Boots the sample: connections first, the listener last, so that the listener stops first."
  use Application
  require Logger

  @impl true
  def start(_type, _args) do
    boot_ms = String.to_integer(System.get_env("SAMPLE_BOOT_MS") || "0")
    Process.sleep(boot_ms)

    if System.get_env("SAMPLE_EXIT_AT_BOOT") do
      Logger.error("cannot reach the database at #{System.get_env("DATABASE_URL")}")
      raise "the sample was told to exit at boot"
    end

    # As an app that keeps uploads or SQLite on the disk.
    if path = System.get_env("SAMPLE_WRITE"), do: File.write!(path, "written\n", [:append])

    crash_after()

    children =
      [
        SampleApp.Jobs,
        %{id: :pg, start: {:pg, :start_link, [SampleApp.PubSub]}},
        SampleApp.Endpoint,
        {Task.Supervisor, name: SampleApp.Connections}
      ] ++
        flaky(System.get_env("SAMPLE_FLAKY_MS")) ++
        if(listens?(), do: [SampleApp.Listener], else: [])

    Supervisor.start_link(children, strategy: :one_for_one, name: SampleApp.Supervisor)
  end

  # A child that its supervisor has to restart again and again, and no visitor notices.
  defp flaky(nil), do: []

  defp flaky(ms) do
    crash = fn ->
      Process.sleep(String.to_integer(ms))
      exit(:flaky)
    end

    child = Supervisor.child_spec({Task, crash}, restart: :permanent)
    options = [strategy: :one_for_one, max_restarts: 1000]
    [%{id: :flaky, type: :supervisor, start: {Supervisor, :start_link, [[child], options]}}]
  end

  defp listens? do
    Application.get_env(:sample_app, :server) and System.get_env("SAMPLE_LISTEN") != "none"
  end

  defp crash_after do
    case System.get_env("SAMPLE_CRASH_AFTER_S") do
      nil ->
        :ok

      seconds ->
        spawn(fn ->
          Process.sleep(String.to_integer(seconds) * 1000)
          Logger.error("the sample was told to crash")
          System.halt(1)
        end)
    end
  end
end
