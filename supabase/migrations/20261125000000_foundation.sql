-- What all five services stand on: the roles of a Supabase project, and a list of the migrations that were applied.
--
-- Each file in this folder is one unit and may be applied again. Supabase publishes the schema `public` to the world: so
-- every table has row level security on and no policy, and no function may be executed by `anon` or `authenticated`. The
-- services come with the service-role key, which passes both. A function that the services call answers one JSON object:
-- an answer that was cut off is then never taken for a figure.

-- A Supabase project has these roles; a bare PostgreSQL behind PostgREST gets them here.
do $$
begin
    if not exists (select from pg_roles where rolname = 'anon') then
        create role anon nologin;
    end if;
    if not exists (select from pg_roles where rolname = 'authenticated') then
        create role authenticated nologin;
    end if;
    if not exists (select from pg_roles where rolname = 'service_role') then
        create role service_role nologin bypassrls;
    end if;
end $$;

grant usage on schema public to anon, authenticated, service_role;

create table if not exists public.short_video_migrations (
    name text primary key,
    applied_at timestamptz not null default now()
);

alter table public.short_video_migrations enable row level security;
revoke all on public.short_video_migrations from anon, authenticated;
grant select on public.short_video_migrations to service_role;

insert into public.short_video_migrations (name) values ('20261125000000_foundation') on conflict do nothing;
notify pgrst, 'reload schema';
