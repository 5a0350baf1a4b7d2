defmodule EctoSQL.MixProject do
  use Mix.Project

  def project do
    [app: :ecto_sql, version: "3.13.0", elixir: "~> 1.14", deps: []]
  end
end
