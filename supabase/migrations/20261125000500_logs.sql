-- logging-service: what users did, and how many logs there are.

create table if not exists public.logs (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    action_type varchar not null,
    description text not null,
    service_name varchar not null,
    created_at timestamp not null default (now() at time zone 'utc')
);

-- `seq` is the order of writing. `created_at` is UTC.
alter table public.logs add column if not exists seq bigint generated always as identity;

-- Those that were there before; what has no user is nobody's.
update public.logs set
    user_id = coalesce(user_id, '00000000-0000-0000-0000-000000000000'),
    action_type = coalesce(action_type, ''),
    description = coalesce(description, ''),
    service_name = coalesce(service_name, ''),
    created_at = coalesce(created_at, 'epoch')
where user_id is null or action_type is null or description is null or service_name is null or created_at is null;

do $$
begin
    if not exists (select from pg_index where indrelid = 'public.logs'::regclass and indisprimary) then
        alter table public.logs add primary key (id);
    end if;
end $$;

alter table public.logs
    alter column id set default gen_random_uuid(),
    alter column user_id set not null,
    alter column action_type set not null,
    alter column description set not null,
    alter column service_name set not null,
    alter column created_at set not null,
    alter column created_at set default (now() at time zone 'utc');

create index if not exists logs_newest on public.logs (created_at, seq);
create index if not exists logs_newest_of_user on public.logs (user_id, created_at, seq);

-- How many logs each user has; the row of nobody (all zeros) counts everybody's. Counting a million for each page is
-- slow.
create table if not exists public.logs_totals (
    user_id uuid primary key,
    logs bigint not null check (logs >= 0)
);

-- Once for each statement, for the rows that it really inserted or deleted. Rows are taken in the order of user_id, so
-- everybody's first: nobody waits for each other in a circle.
create or replace function public.logs_count() returns trigger
language plpgsql set search_path = '' as $$
begin
    if tg_op = 'INSERT' then
        insert into public.logs_totals as totals (user_id, logs)
        select coalesce(user_id, '00000000-0000-0000-0000-000000000000') as whose, count(*) from changed
        group by grouping sets ((), (user_id))
        having count(*) > 0 and (grouping(user_id) = 1 or user_id <> '00000000-0000-0000-0000-000000000000')
        order by whose
        on conflict (user_id) do update set logs = totals.logs + excluded.logs;
    elsif tg_op = 'DELETE' then
        perform from public.logs_totals where user_id = '00000000-0000-0000-0000-000000000000' for update;
        update public.logs_totals as totals set logs = totals.logs - gone.logs
        from (
            select coalesce(user_id, '00000000-0000-0000-0000-000000000000') as whose, count(*) as logs from changed
            group by grouping sets ((), (user_id))
            having grouping(user_id) = 1 or user_id <> '00000000-0000-0000-0000-000000000000'
        ) as gone
        where totals.user_id = gone.whose;
    else
        update public.logs_totals set logs = 0 where logs > 0;
    end if;
    return null;
end $$;

create or replace trigger logs_added after insert on public.logs
    referencing new table as changed for each statement execute function public.logs_count();
create or replace trigger logs_deleted after delete on public.logs
    referencing old table as changed for each statement execute function public.logs_count();
create or replace trigger logs_emptied after truncate on public.logs
    for each statement execute function public.logs_count();

-- Those that were there before the triggers; nobody writes meanwhile.
do $$
begin
    lock table public.logs in share row exclusive mode;
    insert into public.logs_totals (user_id, logs)
    select coalesce(user_id, '00000000-0000-0000-0000-000000000000') as whose, count(*) from public.logs
    group by grouping sets ((), (user_id))
    having grouping(user_id) = 1 or user_id <> '00000000-0000-0000-0000-000000000000'
    order by whose
    on conflict (user_id) do update set logs = excluded.logs;
end $$;

create or replace function public.logs_add(p_logs jsonb) returns jsonb
language plpgsql set search_path = '' as $$
begin
    -- One batch after the other, as they would be by everybody's total anyway: so `seq` is the order in which they
    -- become visible, and two batches with the same logs in different order do not wait for each other in a circle.
    perform pg_advisory_xact_lock('public.logs'::regclass::oid::bigint);
    insert into public.logs (id, user_id, action_type, description, service_name, created_at)
    select log.id, log.user_id, log.action_type, log.description, log.service_name, log.created_at at time zone 'utc'
    from rows from (
        jsonb_to_recordset(p_logs) as (
            id uuid, user_id uuid, action_type varchar, description text, service_name varchar, created_at timestamptz
        )
    ) with ordinality as log (id, user_id, action_type, description, service_name, created_at, place)
    order by log.place
    on conflict (id) do nothing;
    return '{}';
end $$;

-- Newest first, and among equals the last one written. Where the page begins is found in the index alone: what is
-- skipped is never read. `between` and not `=`, so that one user's logs are never picked out of everybody's.
create or replace function public.logs_page(p_user_id uuid, p_start bigint, p_length integer) returns jsonb
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan as $$
declare
    everybody constant uuid := '00000000-0000-0000-0000-000000000000';
    total bigint;
    first record;
    logs jsonb := '[]';
begin
    if p_user_id = everybody then -- as a user's id it has no row of its own
        select count(*) into total from public.logs where user_id = p_user_id;
    else
        select totals.logs into total from public.logs_totals as totals
        where user_id = coalesce(p_user_id, everybody);
    end if;
    if p_start >= coalesce(total, 0) then
        null; -- past the end
    elsif p_user_id is null then
        select created_at, seq into first from public.logs
        order by created_at desc, seq desc limit 1 offset p_start;
        select coalesce(jsonb_agg(to_jsonb(page)), '[]') into logs from (
            select * from public.logs where (created_at, seq) <= (first.created_at, first.seq)
            order by created_at desc, seq desc limit p_length
        ) as page;
    else
        select created_at, seq into first from public.logs
        where user_id between p_user_id and p_user_id
        order by user_id desc, created_at desc, seq desc limit 1 offset p_start;
        select coalesce(jsonb_agg(to_jsonb(page)), '[]') into logs from (
            select * from public.logs
            where user_id >= p_user_id and (user_id, created_at, seq) <= (p_user_id, first.created_at, first.seq)
            order by user_id desc, created_at desc, seq desc limit p_length
        ) as page;
    end if;
    return jsonb_build_object('logs', logs, 'total', coalesce(total, 0));
end $$;

alter table public.logs enable row level security;
alter table public.logs_totals enable row level security;
revoke all on public.logs, public.logs_totals from anon, authenticated;
grant all on public.logs, public.logs_totals to service_role;

revoke all on function public.logs_count, public.logs_add, public.logs_page from public, anon, authenticated;
grant execute on function public.logs_count, public.logs_add, public.logs_page to service_role;

insert into public.short_video_migrations (name) values ('20261125000500_logs') on conflict do nothing;
notify pgrst, 'reload schema';
