defmodule SampleApp.Listener do
  @moduledoc "Accepts connections on the loopback address and hands each to a process of its own."
  use GenServer
  require Logger

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @impl true
  def init(_) do
    Process.flag(:trap_exit, true)
    {port, address} = place(System.get_env("SAMPLE_LISTEN"))

    with {:ok, socket} <- listen(port, address),
         {:ok, _metrics} <- listen_for_metrics(System.get_env("SAMPLE_METRICS_PORT")) do
      Logger.info("listening on port #{port}")
      for _ <- 1..4, do: spawn_link(fn -> accept(socket) end)
      {:ok, socket}
    else
      {:error, wrong} -> {:stop, wrong}
    end
  end

  # Where apps listen that do not listen where they should: on every address, on ::1 alone, on a port of their own.
  defp place("any"), do: {Application.fetch_env!(:sample_app, :port), [ip: {0, 0, 0, 0}]}

  defp place("::1"),
    do: {Application.fetch_env!(:sample_app, :port), [:inet6, ip: {0, 0, 0, 0, 0, 0, 0, 1}]}

  defp place(nil), do: {Application.fetch_env!(:sample_app, :port), [ip: {127, 0, 0, 1}]}
  defp place(port), do: {String.to_integer(port), [ip: {127, 0, 0, 1}]}

  defp listen(port, address) do
    options = [
      :binary,
      packet: :http_bin,
      active: false,
      reuseaddr: true,
      backlog: 1024,
      nodelay: true
    ]

    case :gen_tcp.listen(port, address ++ options) do
      {:ok, socket} -> {:ok, socket}
      {:error, reason} -> {:error, "port #{port}: #{reason}"}
    end
  end

  # A second port, as exporters of metrics have.
  defp listen_for_metrics(nil), do: {:ok, nil}
  defp listen_for_metrics(port), do: listen(String.to_integer(port), ip: {127, 0, 0, 1})

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
