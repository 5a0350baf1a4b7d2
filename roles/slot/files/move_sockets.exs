# beamops.bluegreen
# Asks the visitors of a slot that is not live any more to connect again, a few at a time over `seconds`, and prints what came of it. A channel
# gets what Phoenix sends when it shuts down: "phx_drain"; its socket closes with 1012, and phoenix.js comes back, through nginx, to the live slot.
# Source: Phoenix 1.7.6 to 1.8.9, lib/phoenix/socket/pool_supervisor.ex (Phoenix.Socket.PoolDrainer.terminate/2), lib/phoenix/channel/server.ex.
# Before 1.7.6 a socket may close with 1000, after which phoenix.js does not come back.
version = Application.spec(:phoenix, :vsn)

endpoints =
  for {app, _, _} <- Application.loaded_applications(),
      module <- Application.spec(app, :modules) || [],
      function_exported?(module, :__sockets__, 0),
      # Of several in a release not all need run.
      Process.whereis(module),
      do: module

channels = fn ->
  # A socket that is not to be drained (drainer: false) has no child of this name.
  for endpoint <- endpoints,
      {{:terminator, handler}, drainer, _, _} when is_pid(drainer) <- Supervisor.which_children(endpoint),
      pool = endpoint.config({:socket, handler}),
      number <- 0..(:ets.lookup_element(pool, :partitions, 2) - 1),
      {_, pid, _, _} when is_pid(pid) <-
        (try do
           DynamicSupervisor.which_children(:ets.lookup_element(pool, number, 2))
         catch
           # It is being restarted.
           _, _ -> []
         end),
      do: pid
end

cond do
  version == nil or endpoints == [] ->
    IO.puts("has no Phoenix endpoint, so nobody can be moved")

  not Version.match?(to_string(version), ">= 1.7.6", allow_pre: true) ->
    IO.puts("has Phoenix #{version}, which cannot move its sockets. Phoenix 1.7.6 can")

  true ->
    drain = struct(Phoenix.Socket.Broadcast, event: "phx_drain")
    found = channels.()
    count = length(found)
    # Ten times a second.
    batches = min(count, seconds * 10)
    all = List.to_tuple(found)

    for batch <- 1..batches//1 do
      for place <- div((batch - 1) * count, batches)..(div(batch * count, batches) - 1)//1, do: send(elem(all, place), drain)
      Process.sleep(100)
    end

    # What is at work, such as a LiveView, reads its messages a little later.
    if count > 0, do: Process.sleep(1000)
    left = Enum.count(found, &Process.alive?/1)
    IO.puts("moved #{count - left} of #{count} channels")
end
