"""Moved to dagstop.lab.namespace."""

from dagstop.lab.namespace import main

if __name__ == "__main__":
    raise SystemExit(main())
