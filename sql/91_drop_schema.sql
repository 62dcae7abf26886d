-- Fired by: `dagstop uninstall`, last of all, or by its `--sql` script.
-- Changes: drops schema dagstop, and the role dagstop_listener if no other
-- database of this server uses it and the session may drop roles.
-- Leaves alone: the role where it is still used, or not ours to drop.

drop schema if exists dagstop {cascade};

do $$
begin
    -- the role is the whole server's, and another database may have its own dagstop
    if exists (
        select from pg_catalog.pg_shdepend d
        where d.refclassid = 'pg_catalog.pg_authid'::regclass::oid
            and d.refobjid = pg_catalog.to_regrole('dagstop_listener')::oid
    ) then
        return;
    end if;
    drop role if exists dagstop_listener;
exception
    when insufficient_privilege or dependent_objects_still_exist then
        raise notice 'role dagstop_listener stays: %', sqlerrm;
end
$$;
