defmodule SampleApp.Endpoint do
  @moduledoc """
  What a Phoenix endpoint has of its sockets: a pool of supervisors for each, in a table that its configuration names, with a process for each
  channel (Phoenix 1.7.6 to 1.8.9, lib/phoenix/socket/pool_supervisor.ex).
  """
  use Supervisor

  def start_link(_), do: Supervisor.start_link(__MODULE__, nil, name: __MODULE__)

  def __sockets__, do: [{"/ws", SampleApp.Channel, []}]

  def config({:socket, SampleApp.Channel}), do: :persistent_term.get(__MODULE__)

  @doc "A channel for a websocket, which is told when it has to end."
  def join(transport) do
    pool = config({:socket, SampleApp.Channel})
    partition = :erlang.phash2(transport, :ets.lookup_element(pool, :partitions, 2))
    supervisor = :ets.lookup_element(pool, partition, 2)
    DynamicSupervisor.start_child(supervisor, {SampleApp.Channel, transport})
  end

  def start_pooled(pool, number) do
    {:ok, pid} = DynamicSupervisor.start_link(strategy: :one_for_one)
    :ets.insert(pool, {number, pid})
    {:ok, pid}
  end

  @impl true
  def init(_) do
    pool = :ets.new(__MODULE__, [:public, read_concurrency: true])
    :ets.insert(pool, {:partitions, 2})
    :persistent_term.put(__MODULE__, pool)

    children =
      for number <- 0..1 do
        %{
          id: number,
          start: {__MODULE__, :start_pooled, [pool, number]},
          type: :supervisor,
          shutdown: :infinity
        }
      end

    drainer = {Phoenix.Socket.PoolDrainer, {__MODULE__, SampleApp.Channel}}
    Supervisor.init(children ++ [drainer], strategy: :one_for_one)
  end
end

defmodule SampleApp.Channel do
  @moduledoc "As Phoenix.Channel.Server handles a drain (Phoenix 1.7.6 to 1.8.9, lib/phoenix/channel/server.ex)."
  use GenServer, restart: :temporary

  def start_link(transport), do: GenServer.start_link(__MODULE__, transport)

  @impl true
  def init(transport) do
    Process.monitor(transport)
    {:ok, transport}
  end

  @impl true
  def handle_info(%Phoenix.Socket.Broadcast{event: "phx_drain"}, transport) do
    send(transport, :socket_drain)
    {:stop, {:shutdown, :draining}, transport}
  end

  def handle_info({:DOWN, _, :process, transport, _}, transport), do: {:stop, :normal, transport}
end
