-- Fired by: `dagstop install`, when it brings the schema to a release, or its `--sql` script.
-- Changes: nothing. Notes, for this transaction, what a DBA (or an earlier install) has granted on
-- dagstop's functions, tables and views to which roles; 18_grants.sql grants it again.
-- Leaves alone: the grants themselves. A function that comes back with other columns is dropped
-- first, and its grants would go with it.

do $$
begin
    perform pg_catalog.set_config('dagstop.grants', (
        select pg_catalog.array_agg(
            pg_catalog.format(
                'grant %s on %s to %I %s', a.privilege_type, o.named, pg_catalog.pg_get_userbyid(a.grantee),
                case when a.is_grantable then 'with grant option' end
            )
        )::text
        from (
            select 'function ' || p.oid::regprocedure::text as named, p.proowner as owner, p.proacl as rights
            from pg_catalog.pg_proc p
            where p.pronamespace = pg_catalog.to_regnamespace('dagstop')::oid
            union all
            select 'table ' || c.oid::regclass::text, c.relowner, c.relacl
            from pg_catalog.pg_class c
            where c.relnamespace = pg_catalog.to_regnamespace('dagstop')::oid and c.relkind in ('r', 'v')
        ) as o
        cross join lateral pg_catalog.aclexplode(o.rights) as a
        -- what all may do is decided here, not kept; what the owner may do is his anyway
        where a.grantee <> o.owner and a.grantee <> 0::oid
    ), true);
end
$$;
