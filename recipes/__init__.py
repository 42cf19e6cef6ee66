"""Named recipes as YAML: one file, one recipe."""
