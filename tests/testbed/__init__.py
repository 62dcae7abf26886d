"""Real Airflows, old and new, for `make demo` and for the tests.

`airflows` builds one, `airflow` runs it, `web` speaks to its user interface, `proc` reads `/proc`.
"""
