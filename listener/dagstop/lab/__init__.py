"""Real Airflows, old and new, for `dagstop demo` and for the end-to-end tests.

`airflows` builds one, `airflow` runs it, `web` speaks to its user interface, `proc` reads `/proc`.
"""
