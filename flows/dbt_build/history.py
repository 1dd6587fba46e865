"""History of builds: `dbt.builds`, and up to which load each raw table is published.

Every function works in the caller's transaction: published relations and the record of them are
committed together. The transformer owns the schema, and only reads the ledger (`elt`).
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from flows.dbt_build.manifests import Json
from flows.dbt_build.publish import SCHEMA
from flows.errors import ConfigurationError
from flows.load import ledger
from flows.postgres import schemas

OWN = schemas.OwnSchema(
    SCHEMA,
    "What dbt has built",
    Path(__file__).with_suffix(".sql").read_text(),
    "builds",
    frozenset({"build_id", "run_id", "state", "code", "loads", "published_manifest"}),
)
_RAW_TABLES = """
with known as (
    select
        *,
        coalesce(max(grouped_by) over (partition by source, resource), 0) as last_group
    from elt.partitions
),

resources as (
    select
        source,
        resource,
        bool_and(succeeded_by is not distinct from load_id)
            filter (where load_id >= last_group) as is_complete,
        greatest(max(stored_by), max(deleted_by)) as changed_by,
        max(deleted_by) as deleted_by
    from known
    group by source, resource
),

altered as (
    select source, resource, max(load_id) as load_id
    from elt.schema_changes
    join elt.loads using (load_id)
    group by source, resource
),

tables as (
    select
        resources.*,
        greatest(altered.load_id, deleted_by) as reshaped_by
    from resources
    left join altered using (source, resource)
)

select
    source,
    resource,
    coalesce(changed_by, 0),
    is_complete,
    built.load_id is null or coalesce(built.load_id < greatest(changed_by, reshaped_by), false),
    built.load_id is null or coalesce(built.load_id < reshaped_by, false)
from tables
left join dbt.built_tables as built using (source, resource)
where is_complete is not null
order by source, resource
"""
# Until the first build after an upgrade, the table may lack the column `full_refresh`.
_LAST = """
select
    build_id,
    run_id,
    state,
    code,
    loads,
    coalesce(results -> 'results', '[]'),
    coalesce((to_jsonb(builds) ->> 'full_refresh')::boolean, false)
from (
    select * from dbt.builds
    where %(state)s is null or state = %(state)s
    order by build_id desc
    limit 1
) as builds
"""
_MARK_BUILT = """
insert into dbt.built_tables (source, resource, load_id) values %s
on conflict (source, resource)
do update set load_id = excluded.load_id, built_at = clock_timestamp()
"""
_FORGET = """
update dbt.builds set results = null, manifest = null, docs = null
where ended_at < clock_timestamp() - make_interval(days => %s)
    and (results is not null or manifest is not null or docs is not null)
"""


@dataclass(frozen=True)
class RawTable:
    """The state of a raw table.

    Attributes:
        load_id: the last load that changed it; 0 when none did.
        is_complete: the last load of each of its partitions succeeded.
        is_stale: it changed since its dependants were published.
        is_reshaped: since then it lost rows, changed columns or was excluded from a build.
    """

    source: str
    resource: str
    load_id: int = 0
    is_complete: bool = False
    is_stale: bool = True
    is_reshaped: bool = True

    def __str__(self) -> str:
        """`shop.orders`."""
        return f"{self.source}.{self.resource}"


@dataclass(frozen=True)
class Build:
    """A build that has ended, or whose process has died.

    Attributes:
        results: each node's entry in dbt's run_results.json; empty when dbt built none.
        code: checksum of the dbt project.
        loads: the last load that changed each raw table, by the table's name.
        full_refresh: it rebuilt incremental models from all rows.
    """

    build_id: int
    run_id: str | None
    state: str
    code: str
    loads: Mapping[str, int]
    results: Sequence[Json]
    full_refresh: bool = False


def prepare(cursor: Cursor) -> None:
    """Create or complete the schema `dbt`; the caller must be the only build.

    Raises:
        ConfigurationError: when the schema belongs to somebody else.
    """
    schemas.complete(cursor, OWN)


def raw_tables(cursor: Cursor) -> list[RawTable]:
    """Every raw table that was ever loaded.

    Raises:
        ConfigurationError: no load has brought the ledger up to this version yet.
    """
    if ledger.newest(cursor) == 0:
        return []
    cursor.execute("select to_regclass('elt.partitions') is null")
    if cursor.fetchall()[0][0]:
        raise ConfigurationError(
            "The ledger (schema elt) is that of an older version, without elt.partitions. Load any "
            "resource with this version, which completes the ledger; then build again."
        )
    cursor.execute(_RAW_TABLES)
    return [RawTable(*row) for row in cursor]


def last(cursor: Cursor, state: str | None = None) -> Build | None:
    """The newest build, or the newest one in that state; also of earlier versions."""
    cursor.execute(_LAST, {"state": state})
    row = cursor.fetchone()
    return Build(*row) if row else None


def begin(
    cursor: Cursor,
    run_id: str | None,
    reason: str,
    code: str,
    loads: Mapping[str, int],
    full_refresh: bool = False,
) -> int:
    """Record a new build. The caller must be the only build: others still running are dead."""
    cursor.execute(
        "update dbt.builds set state = 'abandoned', ended_at = clock_timestamp(),"
        " error = 'the process died before recording a result' where state = 'running'"
    )
    cursor.execute(
        "insert into dbt.builds (run_id, state, reason, code, loads, full_refresh, is_recorded)"
        " values (%s, 'running', %s, %s, %s, %s, true) returning build_id",
        [run_id, reason, code, json.dumps(loads), full_refresh],
    )
    return int(cursor.fetchall()[0][0])


def end(cursor: Cursor, build_id: int, state: str, error: str | None = None) -> None:
    """Record how a build ended; a published build stays published."""
    cursor.execute(
        "update dbt.builds set state = %s, error = %s, ended_at = clock_timestamp()"
        " where build_id = %s and state <> 'published'",
        [state, error, build_id],
    )


def keep_artifacts(cursor: Cursor, build_id: int, results: Json, manifest: bytes) -> None:
    """Store dbt's artifacts of a build."""
    cursor.execute(
        "update dbt.builds set results = %s, manifest = %s where build_id = %s",
        [json.dumps(results), gzip.compress(manifest), build_id],
    )


def keep_docs(cursor: Cursor, build_id: int, packed: bytes) -> None:
    """Store the documentation of a build, gzip."""
    cursor.execute("update dbt.builds set docs = %s where build_id = %s", [packed, build_id])


def docs_of(cursor: Cursor, build_id: int) -> bytes | None:
    """The documentation page of a build; None if it has none, or if it has expired."""
    cursor.execute("select docs from dbt.builds where build_id = %s", [build_id])
    row = cursor.fetchone()
    return gzip.decompress(row[0]) if row and row[0] else None


def manifest_of(cursor: Cursor, build_id: int) -> Json:
    """The manifest that dbt wrote for a build."""
    cursor.execute("select manifest from dbt.builds where build_id = %s", [build_id])
    return _unpacked(cursor.fetchall()[0][0])


def published_manifest(cursor: Cursor) -> Json | None:
    """The manifest of everything published; None before the first publication."""
    cursor.execute(
        "select published_manifest from dbt.builds where published_manifest is not null"
        " order by build_id desc limit 1"
    )
    row = cursor.fetchone()
    return _unpacked(row[0]) if row else None


def is_first_with_copies(cursor: Cursor) -> bool:
    """Whether all published builds are of versions that did not copy incremental models."""
    cursor.execute(
        "select count(*) > 0 and not coalesce(bool_or(is_recorded), false)"
        " from dbt.builds where state = 'published'"
    )
    return bool(cursor.fetchall()[0][0])


def unrecorded_manifests(cursor: Cursor) -> Iterator[Json]:
    """Manifests of builds of earlier versions, before the first that records its relations."""
    cursor.execute(
        "select build_id from dbt.builds"
        " where not exists (select from dbt.builds where is_recorded)"
    )
    for (build_id,) in cursor.fetchall():
        cursor.execute(
            "select manifest, published_manifest from dbt.builds where build_id = %s", [build_id]
        )
        yield from (_unpacked(packed) for row in cursor.fetchall() for packed in row if packed)


def _unpacked(packed: memoryview) -> Json:
    manifest: Json = json.loads(gzip.decompress(packed))
    return manifest


def mark_published(
    cursor: Cursor,
    build_id: int,
    manifest: Json,
    built: Iterable[RawTable],
    left_out: Iterable[RawTable],
) -> None:
    """Record that a build is published, and that all dependants of the `built` tables are current.

    Forgets the mark of `left_out` tables, so that their dependants are rebuilt once the table is
    complete again, even if it did not change: they may depend on other tables that did.
    """
    cursor.execute(
        "update dbt.builds set published_manifest = null where build_id < %s", [build_id]
    )
    cursor.execute(
        "update dbt.builds set published_manifest = %s where build_id = %s",
        [gzip.compress(json.dumps(manifest).encode()), build_id],
    )
    end(cursor, build_id, "published")
    execute_values(
        cursor, _MARK_BUILT, [(table.source, table.resource, table.load_id) for table in built]
    )
    for table in left_out:
        cursor.execute(
            "delete from dbt.built_tables where (source, resource) = (%s, %s)",
            [table.source, table.resource],
        )


def forget_artifacts(cursor: Cursor, keep_days: int) -> None:
    """Delete the artifacts of builds that ended more than that many days ago."""
    cursor.execute(_FORGET, [keep_days])
