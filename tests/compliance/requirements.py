"""What SQLAlchemy's suite may ask of PostgreSQL through `postgresql+txpostgres`.

SQLAlchemy assumes little of a dialect it does not know; `OPEN` says what is there, so that those tests run.
What is not there is in `EXCLUDED` with its reason, which the documentation shows.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

OPEN = """
    aggregate_order_by array_type async_dialect autocommit boolean_col_expressions check_constraint_reflection
    column_collation_reflection comment_reflection comment_reflection_full_unicode computed_columns
    computed_columns_reflect_persisted computed_columns_stored computed_columns_virtual
    constraint_comment_reflection create_or_replace_view create_table_as create_temp_table_as
    cross_schema_fk_reflection ctes ctes_on_dml ctes_with_update_delete ctes_with_values datetime_historic
    datetime_interval datetime_literals datetime_timezone datetime_timezone_historic date_historic
    default_schema_name_switch deferrable_fks delete_from except_ expression_server_defaults fetch_expression
    fetch_first fetch_no_order_by fetch_ties fk_constraint_option_reflection_ondelete_noaction
    fk_constraint_option_reflection_ondelete_restrict fk_constraint_option_reflection_onupdate_restrict
    float_or_double_precision_behaves_generically foreign_key_constraint_name_reflection
    foreign_key_constraint_option_reflection_ondelete foreign_key_constraint_option_reflection_onupdate
    fetch_offset_with_options has_temp_table identity_columns identity_columns_standard
    implicit_default_schema index_ddl_if_exists index_reflects_included_columns
    indexes_check_column_order indexes_with_expressions infinity_floats
    inline_check_constraint_reflection intersect isolation_level json_type
    legacy_unconditional_json_extract materialized_views mod_operator_as_percent_sign nullsordering
    percent_schema_names precision_numerics_enotation_small precision_numerics_many_significant_digits
    precision_numerics_retains_significant_digits reflect_indexes_with_expressions
    reflect_table_options reflect_tables_no_columns reflects_pk_names regexp_match regexp_replace
    repeated_column_foreign_keys savepoints schema_create_delete server_defaults skip_autocommit_rollback
    supports_bitwise_and supports_bitwise_not supports_bitwise_or supports_bitwise_shift supports_bitwise_xor
    supports_distinct_on supports_is_distinct_from table_ddl_if_exists table_value_constructor
    temp_table_comment_reflection temp_table_names temporary_views time_timezone timestamp_microseconds
    tuple_in two_phase_transactions unicode_ddl unique_constraints_reflect_as_index update_from
    uuid_data_type views window_functions window_range window_range_non_numeric window_range_numeric
"""

#: The tests that do not run, and why not.
EXCLUDED = {
    "ComponentReflectionTestExtra::test_string_length_reflection[NCHAR]": "PostgreSQL has no NCHAR",
    "ComponentReflectionTestExtra::test_string_length_reflection[NVARCHAR]": "PostgreSQL has no NVARCHAR",
    "FetchLimitOffsetTest::test_fetch_offset_percent": "PostgreSQL has no FETCH … PERCENT",
    "FetchLimitOffsetTest::test_fetch_offset_percent_ties": "PostgreSQL has no FETCH … PERCENT",
    "FetchLimitOffsetTest::test_simple_fetch_percent": "PostgreSQL has no FETCH … PERCENT",
    "FetchLimitOffsetTest::test_simple_fetch_percent_ties": "PostgreSQL has no FETCH … PERCENT",
    "LastrowidTest::test_native_lastrowid_autoinc": "the driver has no lastrowid; RETURNING is used",
    "RepeatedColumnForeignKeyTest::test_get_foreign_keys_remote_repeated": (
        "PostgreSQL refuses a foreign key that names a column of the other table twice"
    ),
    "RepeatedColumnForeignKeyTest::test_reflect_constraint_remote_repeated": (
        "PostgreSQL refuses a foreign key that names a column of the other table twice"
    ),
}


class Requirements(SuiteRequirements):
    """PostgreSQL."""

    def get_order_by_collation(self, _config: Any) -> str:
        """A collation that every PostgreSQL has."""
        return "POSIX"

    def get_isolation_levels(self, _config: Any) -> dict[str, Any]:
        """The levels there are."""
        levels = ["AUTOCOMMIT", "READ COMMITTED", "READ UNCOMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
        return {"default": "READ COMMITTED", "supported": levels}


def _opened(_self: Any) -> Any:
    return exclusions.open()


for _name in OPEN.split():
    setattr(Requirements, _name, property(_opened))
