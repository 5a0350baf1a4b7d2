# beamops.bluegreen
# While the run `run` watches, for `seconds` at most, the node of a slot writes every two seconds to state/<color>/watch what only it knows: that
# run, the id of its process, how often a supervisor has put another process in the place of one of its children, the bytes of its memory, how many
# processes wait for a scheduler, and the messages that some process with a name has not read for three times, with that name. It asks
# nobody whom many wait for: what keeps much in memory is left out, as a supervisor of all visitors does, and names are few.
state = Path.dirname(System.get_env("RELEASE_TMP"))
file = Path.join(state, "watch")
lock = Path.join(state, "../../lock")

children = fn children, supervisor ->
  # The first look costs nothing; the others copy what the process has.
  with {:total_heap_size, words} when words < 50_000 <- Process.info(supervisor, :total_heap_size),
       {:supervisor, _, _} <- :proc_lib.translate_initial_call(supervisor),
       {:links, links} when length(links) <= 200 <- Process.info(supervisor, :links) do
    told =
      try do
        GenServer.call(supervisor, :which_children, 1000)
      catch
        :exit, _ -> []
      end

    Enum.flat_map(told, fn
      {id, pid, :supervisor, _} when id != :undefined and is_pid(pid) and node(pid) == node() ->
        [{{supervisor, id}, pid} | children.(children, pid)]

      {id, pid, _, _} when id != :undefined and is_pid(pid) ->
        [{{supervisor, id}, pid}]

      _ ->
        []
    end)
  else
    _ -> []
  end
end

tree = fn ->
  for {app, _, _} <- Application.started_applications(),
      master = :application_controller.get_master(app),
      is_pid(master),
      {top, _} when is_pid(top) <- [:application_master.get_child(master)],
      child <- children.(children, top),
      into: %{},
      do: child
end

longest = fn ->
  for name <- Process.registered(),
      pid = Process.whereis(name),
      is_pid(pid),
      {:message_queue_len, length} <- [Process.info(pid, :message_queue_len)],
      reduce: {0, :none} do
    found -> max(found, {length, name})
  end
end

watch = fn watch, known, restarts, queues, left ->
  now = tree.()
  # One for a supervisor, however many it restarts together.
  replaced = for {{supervisor, _} = child, pid} <- now, Map.get(known, child, pid) != pid, uniq: true, do: supervisor
  restarts = restarts + length(replaced)
  queues = Enum.take([longest.() | queues], 3)
  # A moment's burst is none.
  {waiting, name} = if length(queues) == 3, do: Enum.min(queues), else: {0, :none}
  figures = [run, System.pid(), restarts, :erlang.memory(:total), :erlang.statistics(:total_run_queue_lengths), waiting, inspect(name)]
  File.write(file <> ".new", Enum.join(figures, " "))
  File.rename(file <> ".new", file)
  Process.sleep(2000)
  known = for {{supervisor, _}, _} = child <- known, Process.alive?(supervisor), into: %{}, do: child
  if left > 2 and File.exists?(lock), do: watch.(watch, Map.merge(known, now), restarts, queues, left - 2)
end

# Of a step before this one.
with pid when is_pid(pid) <- Process.whereis(:bluegreen_watch), do: Process.exit(pid, :kill)

spawn(fn ->
  # This expression ends at once, and with it whoever would print.
  Process.group_leader(self(), Process.whereis(:init))
  Process.sleep(100)
  if Process.whereis(:bluegreen_watch) == nil, do: Process.register(self(), :bluegreen_watch)
  watch.(watch, %{}, 0, [], seconds)
end)
