"""What a run is to do: one YAML file, typed, with all of its bounds."""
