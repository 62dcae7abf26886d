"""${message}

Revision ${up_revision}, after ${down_revision or "nothing"}.
"""

from __future__ import annotations

from dagstop.migrations.apply import apply

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None

UP: tuple[str, ...] = ()
DOWN: tuple[str, ...] = ()


def upgrade() -> None:
    """Run the SQL files of this revision."""
    for name in UP:
        apply(name)


def downgrade() -> None:
    """Run the SQL files that undo it."""
    for name in DOWN:
        apply(name)
