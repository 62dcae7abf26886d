"""Everything that reaches outside the process: Postgres, /proc and signals, the Docker engine."""
