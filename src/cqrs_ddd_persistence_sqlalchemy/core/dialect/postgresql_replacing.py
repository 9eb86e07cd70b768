"""Replacing one table by another on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.core.dialect.replacing import ReplacingDialect, beside, names

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


class PostgreSQLReplacing(ReplacingDialect):
    """DDL is transactional, names of keys and indexes can be changed, and much can be attached to a table."""

    keys_are_named_by_table = False

    def attached(self, connection: Connection, table: sa.Table) -> list[str]:
        """Ask the catalogue."""
        known = [*names(table.constraints), *names(table.indexes)]
        statement = _ATTACHED.bindparams(sa.bindparam("known", expanding=True))
        values = {"name": connection.dialect.identifier_preparer.format_table(table), "known": known}
        return list(connection.scalars(statement, values))

    def copy_settings(self, connection: Connection, table: sa.Table, shadow: sa.Table) -> None:
        """Let the server write the statements, as it knows best how to quote."""
        preparer = connection.dialect.identifier_preparer
        values = {"name": preparer.format_table(table), "shadow": preparer.format_table(shadow)}
        for statement in connection.scalars(_SETTINGS, values).all():
            connection.exec_driver_sql(statement)

    def analyze(self, connection: Connection, table: sa.Table) -> None:
        """Do what autovacuum would do in the next minutes."""
        connection.exec_driver_sql(f"ANALYZE {connection.dialect.identifier_preparer.format_table(table)}")

    def replace(self, connection: Connection, table: sa.Table, shadow: sa.Table) -> None:
        """Rename everything; RESTRICT, the default, refuses what `attached` may have missed."""
        preparer = connection.dialect.identifier_preparer
        name, quote = preparer.format_table(table), preparer.quote_identifier
        prefix = f"{quote(table.schema)}." if table.schema else ""
        connection.exec_driver_sql(f"DROP TABLE {name}")
        connection.exec_driver_sql(f"ALTER TABLE {preparer.format_table(shadow)} RENAME TO {quote(table.name)}")
        for constraint in names(table.constraints):
            connection.exec_driver_sql(
                f"ALTER TABLE {name} RENAME CONSTRAINT {quote(beside(constraint))} TO {quote(constraint)}"
            )
        for index in names(table.indexes):
            connection.exec_driver_sql(f"ALTER INDEX {prefix}{quote(beside(index))} RENAME TO {quote(index)}")


_ATTACHED = sa.text(
    """
    WITH it AS (SELECT to_regclass(CAST(:name AS text))::oid AS oid)
    SELECT DISTINCT CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' ELSE 'rule of ' END
           || c.oid::regclass::text
    FROM it, pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class c ON c.oid = r.ev_class
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = it.oid
    UNION ALL
    SELECT 'function ' || d.objid::regprocedure::text FROM it, pg_depend d
    WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = it.oid
    UNION ALL
    SELECT CASE k.contype WHEN 'f' THEN 'foreign key ' WHEN 'c' THEN 'check ' ELSE 'constraint ' END || k.conname
           || ' of table ' || k.conrelid::regclass::text
    FROM it, pg_constraint k
    WHERE (k.conrelid = it.oid OR k.confrelid = it.oid) AND k.contype <> 'n' AND k.conname::text NOT IN :known
    UNION ALL
    SELECT 'index ' || c.relname FROM it, pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = it.oid AND c.relname::text NOT IN :known
      AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype <> 'f')
    UNION ALL
    SELECT 'trigger ' || t.tgname FROM it, pg_trigger t WHERE t.tgrelid = it.oid AND NOT t.tgisinternal
    UNION ALL
    SELECT 'policy ' || p.polname FROM it, pg_policy p WHERE p.polrelid = it.oid
    UNION ALL
    SELECT 'row level security' FROM it, pg_class c WHERE c.oid = it.oid AND c.relrowsecurity
    UNION ALL
    SELECT 'publication ' || p.pubname
    FROM it, pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = it.oid
    UNION ALL
    SELECT 'tablespace' FROM it, pg_class c WHERE c.oid = it.oid AND c.reltablespace <> 0
    UNION ALL
    SELECT 'UNLOGGED' FROM it, pg_class c WHERE c.oid = it.oid AND c.relpersistence <> 'p'
    UNION ALL
    SELECT 'toast parameters' FROM it, pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid
    WHERE c.oid = it.oid AND t.reloptions IS NOT NULL
    UNION ALL
    SELECT 'replica identity' FROM it, pg_class c WHERE c.oid = it.oid AND c.relreplident <> 'd'
    UNION ALL
    SELECT 'options of index ' || c.relname FROM it, pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = it.oid AND (c.reloptions IS NOT NULL OR i.indisclustered)
    UNION ALL
    SELECT 'statistics ' || s.stxname FROM it, pg_statistic_ext s WHERE s.stxrelid = it.oid
    UNION ALL
    SELECT CASE WHEN h.inhparent = it.oid THEN 'child table ' || h.inhrelid::regclass::text
                ELSE 'parent table ' || h.inhparent::regclass::text END
    FROM it, pg_inherits h WHERE it.oid IN (h.inhrelid, h.inhparent)
    """
)

# In this order: rights are granted by the owner.
_SETTINGS = sa.text(
    """
    WITH it AS (SELECT c.* FROM pg_class c WHERE c.oid = to_regclass(CAST(:name AS text))),
    grants AS (
        SELECT a.privilege_type, '' AS columns, a.grantee, a.is_grantable
        FROM it, aclexplode(it.relacl) a WHERE a.grantee <> it.relowner
        UNION ALL
        SELECT a.privilege_type, format(' (%I)', t.attname), a.grantee, a.is_grantable
        FROM it, pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = it.oid
    )
    SELECT statement FROM (
        SELECT 1 AS step,
               format('ALTER TABLE %s SET (%s)', CAST(:shadow AS text), array_to_string(it.reloptions, ', '))
               AS statement
        FROM it WHERE it.reloptions IS NOT NULL
        UNION ALL
        SELECT 2, format('COMMENT ON TABLE %s IS %L', CAST(:shadow AS text), d.description)
        FROM it, pg_description d WHERE d.objoid = it.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
        UNION ALL
        SELECT 3, format('COMMENT ON COLUMN %s.%I IS %L', CAST(:shadow AS text), t.attname, d.description)
        FROM it, pg_description d JOIN pg_attribute t ON t.attrelid = d.objoid AND t.attnum = d.objsubid
        WHERE d.objoid = it.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid > 0
        UNION ALL
        SELECT 3, format('REVOKE ALL ON %s FROM %s', CAST(:shadow AS text),
                         CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
        FROM pg_class s, aclexplode(s.relacl) a
        WHERE s.oid = to_regclass(CAST(:shadow AS text)) AND a.grantee <> s.relowner
        UNION ALL
        SELECT 4, format('GRANT %s%s ON %s TO %s%s', g.privilege_type, g.columns, CAST(:shadow AS text),
                         CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
                         CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM grants g
        UNION ALL
        SELECT 5, format('ALTER TABLE %s OWNER TO %I', CAST(:shadow AS text), pg_get_userbyid(it.relowner))
        FROM it WHERE pg_get_userbyid(it.relowner) <> current_user
    ) steps ORDER BY step
    """
)
