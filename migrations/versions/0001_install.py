"""Install dagstop: its schema, and its triggers on Airflow's tables (release 0.1.0).

Revision 0001, after nothing.
"""

from __future__ import annotations

from dagstop.migrations.apply import apply_all_at_head

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to its present state, if no later revision does."""
    apply_all_at_head(revision)


def downgrade() -> None:
    """Nothing: `dagstop uninstall` takes everything out, without Alembic, whatever revision is there."""
