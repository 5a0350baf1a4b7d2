%% beamops.bluegreen
%% The node of a slot reads this when it boots (erl -run file eval). It keeps a connection with the nodes in BLUEGREEN_NODES, also after
%% they or the network were gone, and writes the nodes that it sees to state/<color>/nodes, under the id of its process.
File = filename:join(filename:dirname(os:getenv("RELEASE_TMP")), "nodes"),
Nodes = [list_to_atom(Name) || Name <- string:lexemes(os:getenv("BLUEGREEN_NODES", ""), ",")],
Write = fun() ->
    Lines = [os:getpid() | [atom_to_list(Node) || Node <- lists:sort(nodes())]],
    _ = file:write_file(File ++ ".new", [[Line, $\n] || Line <- Lines]),
    _ = file:rename(File ++ ".new", File)
  end,
%% A process for each: to find that a host is gone takes seconds.
[spawn(fun Connect() -> net_kernel:connect_node(Node), timer:sleep(3000), Connect() end) || Node <- Nodes],
spawn(fun() ->
    net_kernel:monitor_nodes(true),
    Follow = fun Next() ->
        Write(),
        receive {nodeup, _} -> ok; {nodedown, _} -> ok after 10000 -> ok end,
        Next()
      end,
    Follow()
  end).
