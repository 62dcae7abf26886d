"""`dagstop page`: the page, /metrics and /healthz, a program of its own that needs no rights.

What it serves (`server.py`) comes from the database only (`facts.py`), so one page shows every host.
"""
