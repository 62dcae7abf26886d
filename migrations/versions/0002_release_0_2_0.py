"""The schema of release 0.2.0.

Revision 0002, after 0001.
"""

from __future__ import annotations

from dagstop.migrations.apply import apply_all_at_head

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to its present state, if no later revision does."""
    apply_all_at_head(revision)


def downgrade() -> None:
    """Nothing: there is no way back to 0001 alone (its files are 0.1.0's)."""
