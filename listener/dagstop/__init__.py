"""dagstop: a DAG run marked failed, by any means, stops on every host."""

__version__ = "0.2.0.dev0"
