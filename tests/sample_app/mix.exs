defmodule SampleApp.MixProject do
  use Mix.Project

  # Both from the environment, so that one source makes several artifacts:
  # another version, or the same version with other content (SAMPLE_BUILD is in the answer of /).
  def project do
    [
      app: :sample_app,
      version: System.get_env("SAMPLE_VERSION", "0.1.0"),
      elixir: "~> 1.14",
      start_permanent: Mix.env() == :prod,
      deps: [{:ecto_sql, path: "ecto_sql", runtime: false}, {:phoenix, path: "phoenix"}],
      # Debian's erlang-p1-pgsql, which only the release `shop` has in it.
      xref: [exclude: [:pgsql]],
      releases: [
        sample_app: [steps: [:assemble, :tar]],
        # The same code under another name: a second app for the same server.
        other_app: [applications: [sample_app: :permanent], steps: [:assemble, :tar]],
        # And with what a generated Phoenix app has behind and around it: a database, migrations, env.sh, overlays.
        shop: [
          applications: [sample_app: :permanent, p1_pgsql: :permanent, ecto_sql: :permanent],
          runtime_config_path: "config/shop_runtime.exs",
          rel_templates_path: "rel/shop",
          overlays: "rel/shop/overlays",
          steps: [:assemble, :tar]
        ]
      ]
    ]
  end

  def application do
    [extra_applications: [:logger, :crypto], mod: {SampleApp.Application, []}]
  end
end
