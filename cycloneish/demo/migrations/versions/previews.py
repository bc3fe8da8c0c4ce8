"""What the background tasks add: small pictures, and the titles of linked pages."""

import sqlalchemy as sa
from alembic import op

revision = "previews"
down_revision = "first"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("picture", sa.Column("thumbnail", sa.LargeBinary()))
    op.add_column("message", sa.Column("link", sa.Text()))
    op.add_column("message", sa.Column("link_title", sa.Text()))


def downgrade() -> None:
    op.drop_column("message", "link_title")
    op.drop_column("message", "link")
    op.drop_column("picture", "thumbnail")
