import Config

# As `mix phx.new` writes it.
database_url =
  System.get_env("DATABASE_URL") ||
    raise """
    environment variable DATABASE_URL is missing.
    For example: ecto://USER:PASS@HOST/DATABASE
    """

secret_key_base =
  System.get_env("SECRET_KEY_BASE") ||
    raise """
    environment variable SECRET_KEY_BASE is missing.
    You can generate one by calling: mix phx.gen.secret
    """

config :sample_app,
  ecto_repos: [Shop.Repo],
  server: System.get_env("PHX_SERVER") in ["true", "1"],
  port: String.to_integer(System.get_env("PORT") || "4000"),
  host: System.get_env("PHX_HOST") || "example.com",
  database_url: database_url,
  secret_key_base: secret_key_base
