defmodule Phoenix.MixProject do
  use Mix.Project

  # Stands in for Phoenix, with the little of it that the collection talks to.
  def project, do: [app: :phoenix, version: "1.7.21", elixir: "~> 1.14"]
  def application, do: [extra_applications: []]
end
