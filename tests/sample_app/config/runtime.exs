import Config

if System.get_env("SAMPLE_FAIL_CONFIG") do
  raise "environment variable DATABASE_URL is missing"
end

config :sample_app,
  # As Phoenix has it: without PHX_SERVER the release boots, and nobody listens.
  server: System.get_env("PHX_SERVER") in ["true", "1"],
  port: String.to_integer(System.get_env("PORT") || "4000")
