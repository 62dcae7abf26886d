"""`python -m dagstop` and the `dagstop` command."""

from dagstop.commands import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
