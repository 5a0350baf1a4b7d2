defmodule Phoenix.Socket.Broadcast do
  @moduledoc "The message that channels get, with the fields that it has in Phoenix 1.7.6 to 1.8.9."
  defstruct topic: nil, event: nil, payload: nil
end

defmodule Phoenix.Socket.PoolDrainer do
  @moduledoc """
  In Phoenix, what asks the channels of a socket to end when the app stops: a child of the endpoint for each socket, unless that
  says `drainer: false` (Phoenix 1.7.6 to 1.8.9, lib/phoenix/socket/pool_supervisor.ex).
  """
  use Agent

  def child_spec({_endpoint, socket}),
    do: %{id: {:terminator, socket}, start: {__MODULE__, :start_link, [socket]}}

  def start_link(socket), do: Agent.start_link(fn -> socket end)
end
