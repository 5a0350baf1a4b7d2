defmodule SampleApp.Connection do
  @moduledoc """
  One HTTP/1.1 connection. When the supervisor asks it to stop, an idle connection closes at once, a request in flight gets
  its answer first, and a websocket gets close code 1012 (service restart), as Phoenix does it.
  """

  def init do
    Process.flag(:trap_exit, true)

    receive do
      {:socket, socket} -> next_request(socket)
      {:EXIT, _, _} -> :ok
    end
  end

  defp next_request(socket) do
    :inet.setopts(socket, packet: :http_bin, active: :once)

    receive do
      {:http, ^socket, {:http_request, method, {:abs_path, target}, _version}} ->
        headers = read_headers(socket, %{})
        body = read_body(socket, headers)
        handle(socket, method, URI.parse(target), headers, body)

      {:EXIT, _, _} ->
        :gen_tcp.close(socket)

      _closed_or_garbage ->
        :gen_tcp.close(socket)
    end
  end

  defp read_headers(socket, headers) do
    case :gen_tcp.recv(socket, 0, 30_000) do
      {:ok, {:http_header, _, name, _, value}} ->
        read_headers(socket, Map.put(headers, String.downcase(to_string(name)), value))

      {:ok, :http_eoh} ->
        headers

      _ ->
        exit(:normal)
    end
  end

  defp read_body(socket, headers) do
    case String.to_integer(headers["content-length"] || "0") do
      0 ->
        ""

      length ->
        :inet.setopts(socket, packet: :raw)
        {:ok, body} = :gen_tcp.recv(socket, length, 60_000)
        body
    end
  end

  defp handle(socket, _method, %{path: "/stream"} = uri, headers, _body) do
    query = URI.decode_query(uri.query || "")
    count = String.to_integer(query["n"] || "10")
    pause = String.to_integer(query["ms"] || "100")

    :gen_tcp.send(socket, head(200, [{"transfer-encoding", "chunked"}]))

    for number <- 1..count do
      line = "#{number} #{color()}\n"
      :gen_tcp.send(socket, [Integer.to_string(byte_size(line), 16), "\r\n", line, "\r\n"])
      Process.sleep(pause)
    end

    :gen_tcp.send(socket, "0\r\n\r\n")
    go_on(socket, headers)
  end

  defp handle(socket, :GET, %{path: "/headers"}, headers, _body) do
    reply(
      socket,
      headers,
      {200, [], Enum.map_join(headers, fn {name, value} -> "#{name}: #{value}\n" end)}
    )
  end

  # As Phoenix's check_origin: a page of another host gets no websocket.
  defp handle(
         socket,
         :GET,
         %{path: "/ws"} = uri,
         %{"sec-websocket-key" => _, "origin" => origin} = headers,
         body
       ) do
    host = Application.get_env(:sample_app, :host)

    if host in [nil, URI.parse(origin).host],
      do: handle(socket, :GET, uri, Map.delete(headers, "origin"), body),
      else: reply(socket, headers, {403, [], "the Origin #{origin} is not of #{host}\n"})
  end

  defp handle(socket, :GET, %{path: "/ws"}, %{"sec-websocket-key" => key}, _body) do
    accept = Base.encode64(:crypto.hash(:sha, key <> "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))

    :gen_tcp.send(socket, [
      "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n",
      "sec-websocket-accept: #{accept}\r\nx-color: #{color()}\r\n\r\n"
    ])

    :pg.join(SampleApp.PubSub, :listeners, self())
    SampleApp.Endpoint.join(self())
    :inet.setopts(socket, packet: :raw, active: :once)
    SampleApp.Websocket.loop(socket, "", color())
  end

  defp handle(socket, method, uri, headers, body) do
    # As Plug.SSL with rewrite_on: [:x_forwarded_proto].
    if System.get_env("SAMPLE_FORCE_SSL") && headers["x-forwarded-proto"] != "https",
      do:
        reply(socket, headers, {301, [{"location", "https://#{headers["host"]}#{uri.path}"}], ""}),
      else:
        reply(socket, headers, answer(method, uri.path, URI.decode_query(uri.query || ""), body))
  end

  defp reply(socket, headers, {status, extra, answer}) do
    stopping = stopping?()
    extra = if stopping, do: [{"connection", "close"} | extra], else: extra
    :gen_tcp.send(socket, [head(status, [{"content-length", byte_size(answer)} | extra]), answer])
    if stopping, do: :gen_tcp.close(socket), else: go_on(socket, headers)
  end

  defp go_on(socket, headers) do
    if String.downcase(headers["connection"] || "") == "close" or stopping?(),
      do: :gen_tcp.close(socket),
      else: next_request(socket)
  end

  defp stopping? do
    receive do
      {:EXIT, _, _} -> true
    after
      0 -> false
    end
  end

  # With SAMPLE_WORSE, so many pages of a thousand fail, and all of them take so many milliseconds longer: "50 0".
  defp answer(:GET, "/", _query, _body) do
    [errors, delay] =
      (System.get_env("SAMPLE_WORSE") || "0 0") |> String.split() |> Enum.map(&String.to_integer/1)

    Process.sleep(delay)
    if :rand.uniform(1000) <= errors, do: {500, [], "as the test wants it\n"}, else: front_page()
  end

  defp answer(:GET, "/health", _query, _body) do
    cond do
      System.get_env("SAMPLE_UNHEALTHY") ->
        {503, [], "the sample was told to be unhealthy\n"}

      System.get_env("SAMPLE_REDIRECT") ->
        {301, [{"location", "https://example.com/health"}], ""}

      status = System.get_env("SAMPLE_HEALTH_STATUS") ->
        {String.to_integer(status), [], "as the test wants it\n"}

      SampleApp.Database.configured?() ->
        database_health()

      true ->
        {200, [], "ok\n"}
    end
  end

  # Whether its schema is that of this version: that, no health check of a generated app asks.
  defp answer(:GET, "/items", _query, _body) do
    case SampleApp.Database.items() do
      {:ok, rows} -> {200, [], Enum.map_join(rows, &(Enum.join(&1, " ") <> "\n"))}
      {:error, message} -> {500, [], message <> "\n"}
    end
  end

  # Every websocket of every connected node hears it, as Phoenix.PubSub does it.
  defp answer(:POST, "/broadcast", _query, body) do
    members = :pg.get_members(SampleApp.PubSub, :listeners)
    Enum.each(members, &send(&1, {:broadcast, body}))
    {200, [], "#{length(members)}\n"}
  end

  defp answer(:GET, "/slow", query, _body) do
    Process.sleep(String.to_integer(query["ms"] || "1000"))
    {200, [], "#{color()} #{SampleApp.version()}\n"}
  end

  # As Plug.Static does it: what this release has, and 404 for what another has.
  defp answer(:GET, "/assets/" <> name, _query, _body) do
    case File.read(Path.join([:code.priv_dir(:sample_app), "static/assets", Path.basename(name)])) do
      {:ok, text} -> {200, [{"content-type", "text/javascript"}], text}
      _ -> {404, [], "not found\n"}
    end
  end

  defp answer(:GET, "/jobs", _query, _body), do: {200, [], "#{SampleApp.Jobs.state()}\n"}

  defp answer(:POST, "/echo", _query, body), do: {200, [], body}

  defp answer(:GET, "/env-names", _query, _body) do
    {200, [], System.get_env() |> Map.keys() |> Enum.sort() |> Enum.map_join(&(&1 <> "\n"))}
  end

  defp answer(_method, _path, _query, _body), do: {404, [], "not found\n"}

  defp front_page do
    text =
      ~s({"app": "sample_app", "version": "#{SampleApp.version()}", "build": "#{SampleApp.build()}", ) <>
        ~s("color": "#{color()}", "node": "#{node()}", "pid": #{System.pid()}}\n)

    {200, [{"content-type", "application/json"}], text}
  end

  defp database_health do
    case SampleApp.Database.query("select 1") do
      {:ok, _} -> {200, [], "ok\n"}
      {:error, message} -> {503, [], message <> "\n"}
    end
  end

  defp head(status, headers) do
    reasons = %{200 => "OK", 301 => "Moved Permanently", 403 => "Forbidden", 404 => "Not Found"}
    reasons = Map.merge(reasons, %{500 => "Internal Server Error", 503 => "Service Unavailable"})
    fields = for {name, value} <- [{"x-color", color()} | headers], do: "#{name}: #{value}\r\n"
    ["HTTP/1.1 #{status} #{reasons[status] || "Other"}\r\n", fields, "\r\n"]
  end

  defp color, do: System.get_env("BLUEGREEN_COLOR") || "none"
end
