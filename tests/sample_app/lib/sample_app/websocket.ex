defmodule SampleApp.Websocket do
  @moduledoc "A websocket (RFC 6455) that echoes text, with the color of the slot in front. Frames up to 64 KiB."

  def loop(socket, buffer, color) do
    case frame(buffer) do
      {:ok, opcode, payload, rest} ->
        case opcode do
          1 -> reply(socket, 1, "#{color} #{payload}", rest, color)
          9 -> reply(socket, 10, payload, rest, color)
          8 -> close(socket, 1000)
          _ -> loop(socket, rest, color)
        end

      :more ->
        receive do
          {:tcp, ^socket, data} ->
            :inet.setopts(socket, active: :once)
            loop(socket, buffer <> data, color)

          {:broadcast, text} ->
            send_frame(socket, 1, text)
            loop(socket, buffer, color)

          {:EXIT, _, _} ->
            close(socket, 1012)

          :socket_drain ->
            close(socket, 1012)

          {:tcp_closed, ^socket} ->
            :ok

          {:tcp_error, ^socket, _} ->
            :ok
        end
    end
  end

  defp reply(socket, opcode, payload, rest, color) do
    send_frame(socket, opcode, payload)
    loop(socket, rest, color)
  end

  defp close(socket, code) do
    send_frame(socket, 8, <<code::16>>)
    :gen_tcp.close(socket)
  end

  defp send_frame(socket, opcode, payload) do
    size = byte_size(payload)
    length = if size < 126, do: <<size>>, else: <<126, size::16>>
    :gen_tcp.send(socket, [<<1::1, 0::3, opcode::4>>, length, payload])
  end

  defp frame(
         <<_::4, opcode::4, 1::1, 126::7, size::16, mask::binary-4, data::binary-size(size),
           rest::binary>>
       ),
       do: {:ok, opcode, unmask(data, mask), rest}

  defp frame(
         <<_::4, opcode::4, 1::1, size::7, mask::binary-4, data::binary-size(size), rest::binary>>
       )
       when size < 126,
       do: {:ok, opcode, unmask(data, mask), rest}

  defp frame(_), do: :more

  defp unmask(data, mask) do
    times = div(byte_size(data), 4) + 1
    key = binary_part(:binary.copy(mask, times), 0, byte_size(data))
    :crypto.exor(data, key)
  end
end
