defmodule SampleApp.Jobs do
  @moduledoc """
  Stands for the queues of an app, which must run in the live slot only. At boot the slot looks whether it is live; later it is
  told by `bluegreen_on_live` and `bluegreen_on_idle`.
  """
  use Agent
  require Logger

  def start_link(_),
    do: Agent.start_link(fn -> if(live?(), do: :running, else: :paused) end, name: __MODULE__)

  def state, do: Agent.get(__MODULE__, & &1)
  def run, do: set(:running)
  def pause, do: set(:paused)

  defp set(state) do
    Logger.info("jobs: #{state}")
    Agent.update(__MODULE__, fn _ -> state end)
  end

  defp live? do
    case System.get_env("BLUEGREEN_LIVE_FILE") do
      nil -> true
      path -> File.exists?(path)
    end
  end
end
