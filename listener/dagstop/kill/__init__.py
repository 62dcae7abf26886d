"""Stage 4, kill: SIGTERM, grace, SIGKILL, look again, until nothing is left or the reason is known."""
