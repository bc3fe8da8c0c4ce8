"""The tables; those that an earlier version of the board made are taken as they are."""

import sqlalchemy as sa
from alembic import op

revision = "first"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    if sa.inspect(op.get_bind()).has_table("member"):
        return
    now = sa.text("now()")
    op.create_table(
        "member",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password", sa.LargeBinary(), nullable=False),
        sa.Column("joined", sa.DateTime(timezone=True), nullable=False, server_default=now),
    )
    op.create_index("member_name", "member", [sa.text("lower(name)")], unique=True)
    op.create_table(
        "picture",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "message",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("author_id", sa.BigInteger(), sa.ForeignKey("member.id"), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("picture_id", sa.BigInteger(), sa.ForeignKey("picture.id")),
        sa.Column("written", sa.DateTime(timezone=True), nullable=False, server_default=now),
    )


def downgrade() -> None:
    for table in ("message", "picture", "member"):
        op.drop_table(table)
