-- Fired by: the script that `dagstop install --sql` prints, after all else; a live install leaves it to Alembic.
-- Changes: notes in dagstop's own Alembic version table which revision the schema has now.
-- Leaves alone: a schema that a later release has brought: then the script ends here, undone.

do $$
begin
    if exists (select from dagstop.alembic_version v where v.version_num::text > '{revision}'::text) then
        raise exception 'this database has a later release of dagstop than this script brings'
            using hint = 'Print the script with that release, or a later one.';
    end if;
end
$$;

delete from dagstop.alembic_version;
insert into dagstop.alembic_version (version_num) values ('{revision}');
