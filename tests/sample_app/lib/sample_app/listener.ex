defmodule SampleApp.Listener do
  @moduledoc "Accepts connections on the loopback address and hands each to a process of its own."
  use GenServer
  require Logger

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @impl true
  def init(_) do
    Process.flag(:trap_exit, true)
    port = Application.fetch_env!(:sample_app, :port)

    options = [
      :binary,
      packet: :http_bin,
      active: false,
      reuseaddr: true,
      backlog: 1024,
      nodelay: true,
      ip: {127, 0, 0, 1}
    ]

    case :gen_tcp.listen(port, options) do
      {:ok, socket} ->
        Logger.info("listening on port #{port}")
        for _ <- 1..4, do: spawn_link(fn -> accept(socket) end)
        {:ok, socket}

      {:error, reason} ->
        {:stop, "port #{port}: #{reason}"}
    end
  end

  @impl true
  def terminate(_reason, socket), do: :gen_tcp.close(socket)

  defp accept(listener) do
    case :gen_tcp.accept(listener) do
      {:ok, socket} ->
        {:ok, pid} =
          Task.Supervisor.start_child(SampleApp.Connections, SampleApp.Connection, :init, [],
            shutdown: 15_000
          )

        :ok = :gen_tcp.controlling_process(socket, pid)
        send(pid, {:socket, socket})
        accept(listener)

      {:error, :closed} ->
        :ok

      {:error, _} ->
        accept(listener)
    end
  end
end
