"""Members that sign in with GitHub, and have no password here."""

import sqlalchemy as sa
from alembic import op

revision = "github"
down_revision = "previews"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("member", sa.Column("github", sa.BigInteger()))
    op.create_index("member_github", "member", ["github"], unique=True)
    op.alter_column("member", "password", nullable=True)


def downgrade() -> None:
    op.execute("update member set password = '' where password is null")  # which matches nothing
    op.alter_column("member", "password", nullable=False)
    op.drop_index("member_github", "member")
    op.drop_column("member", "github")
