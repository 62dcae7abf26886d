"""Install dagstop: its schema, and its triggers on Airflow's tables.

Revision 0001, after nothing.
"""

from __future__ import annotations

from dagstop import sql
from dagstop.migrations.apply import apply

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UP = sql.INSTALL_FILES
DOWN = (sql.LOCK_FILE, sql.UNINSTALL_FILE)


def upgrade() -> None:
    """Run the SQL files of this revision."""
    for name in UP:
        apply(name)


def downgrade() -> None:
    """Run the SQL files that undo it."""
    for name in DOWN:
        apply(name)
