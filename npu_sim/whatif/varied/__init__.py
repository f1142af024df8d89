"""What a sweep varies: its TOML file, and the axes in it. Read `sweep_toml.py` first."""
