defmodule SampleApp do
  @moduledoc "What the sample says of itself."

  @build System.get_env("SAMPLE_BUILD", "1")

  def version, do: to_string(Application.spec(:sample_app, :vsn))
  def build, do: @build
end
