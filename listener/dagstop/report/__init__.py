"""What is said of an order: to the database, the log, the task's own log and the counters."""
