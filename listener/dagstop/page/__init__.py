"""`dagstop listen --http`: the page, /metrics and /healthz, in a process of their own without rights.

The listener (`keeper.py`) owns the socket and starts that process (`__main__.py`); what it serves comes
from the database only (`facts.py`), so it shows every host, whichever host serves it.
"""
