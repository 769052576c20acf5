"""Where rows come from: the section `source` of a spec, and `drift.source`."""

from __future__ import annotations

from datetime import date, timedelta

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from bnpipe.config.scalars import Day, Days, Part, Text, TimeZone


def _one_source(sql: str | None, info: ValidationInfo) -> str | None:
    if "path" in info.data and (info.data["path"] is None) == (sql is None):
        raise ValueError("give either `path` or `sql`")
    return sql


class SourceSpec(Part):
    """Where rows come from."""

    connection: Text = Field(
        default="local",
        description="Name of a connection: `BNPIPE_CONN_<NAME>` holds its URL. `local` is files below `BNPIPE_DATA`.",
    )
    path: Text | None = Field(
        default=None,
        description="Parquet or CSV files by pattern, below the connection; or `package://PACKAGE/folder/file.csv`.",
        examples=["flights/day=*/*.parquet"],
    )
    sql: Text | None = Field(
        default=None, validate_default=True, description="Or one SELECT.", examples=["SELECT * FROM claims"]
    )
    timestamp: Text = Field(description="Column that says when the row happened.", examples=["departure"])
    time_zone: TimeZone = Field(
        default="UTC", description="IANA name; days begin at its midnight.", examples=["Europe/Berlin"]
    )
    lag: Days = Field(default=0, description="Days that rows need to arrive; the window ends that much earlier.")
    until: Day | None = Field(
        default=None,
        description="Last day the source has, if it has ended; later scheduled runs skip.",
        examples=["2013-12-31"],
    )
    cluster: Text | None = Field(
        default=None, description="Column whose rows belong together (depend on each other); left out: the local day."
    )

    _check_sql = field_validator("sql")(_one_source)

    @property
    def last_end(self) -> date | None:
        """The midnight that ends the source's last day: no window ends later. None: the source goes on."""
        return None if self.until is None else self.until + timedelta(days=1)


class LiveSourceSpec(Part):
    """Where live rows come from, if not from where a training reads; columns are called as the variables."""

    connection: Text = Field(default="local", description="Name of a connection, as in `source`.")
    path: Text | None = Field(
        default=None,
        description="Files by pattern, below the connection; such as the log that `bnpipe serve` keeps of its answers.",
        examples=["answers/model=flights/day=*/*.parquet"],
    )
    sql: Text | None = Field(
        default=None, validate_default=True, description="Or one SELECT, such as one that joins labels to the answers."
    )
    timestamp: Text = Field(default="_at", description="Column that says when the row happened.")
    cluster: Text | None = Field(
        default=None, description="Column whose rows belong together; left out: the local day, in `source.time_zone`."
    )

    _check_sql = field_validator("sql")(_one_source)
