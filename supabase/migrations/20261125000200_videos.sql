-- video-service: the catalogue, what it owes the other services, and the filenames that are never to be.

create table if not exists public.videos (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    filename text not null,
    filepath text not null,
    title text not null,
    uploaded_at timestamptz not null default now(),
    deleted_at timestamp,
    size_mb float8 not null
);

-- `seq` is the order of adding, `title_key` what a search looks into; pixels are as displayed, the duration in seconds.
alter table public.videos
    add column if not exists seq bigint generated always as identity,
    add column if not exists duration float8,
    add column if not exists width integer not null default 0,
    add column if not exists height integer not null default 0,
    add column if not exists title_key text not null default '',
    drop constraint if exists videos_figures,
    add constraint videos_figures check (
        size_mb >= 0 and size_mb < 'infinity' and duration > 0 and width >= 0 and height >= 0
    );

-- Those that were there before; what has no user is nobody's.
update public.videos set id = gen_random_uuid() where id is null;
update public.videos set
    filename = coalesce(filename, id::text),
    user_id = coalesce(user_id, '00000000-0000-0000-0000-000000000000'),
    title = coalesce(title, ''),
    title_key = lower(coalesce(title, '')),
    uploaded_at = coalesce(uploaded_at, 'epoch'),
    size_mb = coalesce(size_mb, 0)
where filename is null or user_id is null or title is null or uploaded_at is null or size_mb is null
    or (title_key = '' and title <> '');

do $$
begin
    if not exists (select from pg_index where indrelid = 'public.videos'::regclass and indisprimary) then
        alter table public.videos add primary key (id);
    end if;
end $$;

alter table public.videos
    alter column id set default gen_random_uuid(),
    alter column user_id set not null,
    alter column filename set not null,
    alter column title set not null,
    alter column uploaded_at set not null,
    alter column uploaded_at set default now(),
    alter column size_mb set not null;

create unique index if not exists videos_filename on public.videos (filename);
create index if not exists videos_newest on public.videos (uploaded_at, seq) where deleted_at is null;
create index if not exists videos_newest_of_user on public.videos (user_id, uploaded_at, seq) where deleted_at is null;

-- Part of a title is found by its groups of three letters, where the database has them; every Supabase project does.
do $$
begin
    if exists (select from pg_available_extensions where name = 'pg_trgm') then
        create schema if not exists extensions;
        create extension if not exists pg_trgm with schema extensions;
        set local search_path = public, extensions;
        create index if not exists videos_title on public.videos using gin (title_key gin_trgm_ops)
            where deleted_at is null;
    end if;
end $$;

-- How many live videos each user has; the row of nobody (all zeros) counts everybody's.
create table if not exists public.videos_totals (
    user_id uuid primary key,
    live bigint not null check (live >= 0)
);

create table if not exists public.videos_settled (
    filename text primary key,
    settled_at timestamptz not null
);
create index if not exists videos_settled_by_time on public.videos_settled (settled_at);

create table if not exists public.videos_outbox (
    id uuid primary key,
    seq bigint generated always as identity,
    kind text not null check (kind in ('keep', 'upload_done', 'delete', 'deletions', 'release', 'unlock')),
    body text not null,
    attempts integer not null default 0 check (attempts >= 0),
    due_at timestamptz not null
);
create index if not exists videos_outbox_due on public.videos_outbox (due_at, seq);

-- Counted once for each statement, however many rows it has. Everybody's row comes first, then the users in the order
-- of their ids, for all who count: so nobody waits for each other in a circle. An update both adds and takes away.
create or replace function public.videos_came() returns trigger
language plpgsql set search_path = '' as $$
begin
    insert into public.videos_totals as totals (user_id, live)
    select coalesce(user_id, '00000000-0000-0000-0000-000000000000'), count(*) from new_videos
    where deleted_at is null group by grouping sets ((), (user_id))
    having count(*) > 0 and (grouping(user_id) = 1 or user_id <> '00000000-0000-0000-0000-000000000000') order by 1
    on conflict (user_id) do update set live = totals.live + excluded.live;
    return null;
end $$;

create or replace function public.videos_went() returns trigger
language plpgsql set search_path = '' as $$
begin
    perform from public.videos_totals where user_id = any (array(
        select '00000000-0000-0000-0000-000000000000'::uuid
        union select user_id from old_videos where deleted_at is null
    )) order by user_id for update;
    update public.videos_totals as totals set live = totals.live - gone.live from (
        select coalesce(user_id, '00000000-0000-0000-0000-000000000000') as user_id, count(*) as live from old_videos
        where deleted_at is null group by grouping sets ((), (user_id))
        having grouping(user_id) = 1 or user_id <> '00000000-0000-0000-0000-000000000000'
    ) as gone where totals.user_id = gone.user_id;
    return null;
end $$;

create or replace trigger videos_came_in after insert on public.videos
    referencing new table as new_videos for each statement execute function public.videos_came();
create or replace trigger videos_came_by_update after update on public.videos
    referencing new table as new_videos for each statement execute function public.videos_came();
create or replace trigger videos_went_by_update after update on public.videos
    referencing old table as old_videos for each statement execute function public.videos_went();
create or replace trigger videos_went_out after delete on public.videos
    referencing old table as old_videos for each statement execute function public.videos_went();

-- Those that were there before the triggers; nobody writes meanwhile.
do $$
begin
    lock table public.videos in share row exclusive mode;
    insert into public.videos_totals (user_id, live)
    select coalesce(user_id, '00000000-0000-0000-0000-000000000000') as whose, count(*) from public.videos
    where deleted_at is null group by grouping sets ((), (user_id))
    having grouping(user_id) = 1 or user_id <> '00000000-0000-0000-0000-000000000000'
    order by whose
    on conflict (user_id) do update set live = excluded.live;
end $$;

-- A change writes down what it owes in its own transaction.
create or replace function public.videos_owe(p_owed jsonb, p_due_at timestamptz) returns jsonb
language sql set search_path = '' as $$
    insert into public.videos_outbox (id, kind, body, due_at)
    select one.id, one.kind, one.body, p_due_at
    from rows from (jsonb_to_recordset(p_owed) as (id uuid, kind text, body text)) with ordinality
        as one (id, kind, body, place)
    order by one.place
    on conflict (id) do nothing;
    select '{}'::jsonb;
$$;

create or replace function public.videos_add(p_video jsonb, p_owed jsonb, p_lease timestamptz) returns jsonb
language plpgsql set search_path = '' as $$
declare
    video public.videos := jsonb_populate_record(null::public.videos, p_video);
begin
    -- Between adding a filename and settling it as never to be, one waits for the other.
    perform pg_advisory_xact_lock(hashtextextended(video.filename, 0));
    if exists (select from public.videos where id = video.id) then
        return '{"added": true}'; -- a repetition
    end if;
    if exists (select from public.videos_settled where filename = video.filename) then
        return '{"added": false}';
    end if;
    insert into public.videos (id, user_id, filename, filepath, title, uploaded_at, size_mb, duration, width, height,
                               title_key)
    values (video.id, video.user_id, video.filename, video.filepath, video.title, video.uploaded_at, video.size_mb,
            video.duration, video.width, video.height, video.title_key);
    perform public.videos_owe(p_owed, p_lease);
    return '{"added": true}';
end $$;

create or replace function public.videos_settle(p_filename text, p_now timestamptz) returns jsonb
language plpgsql set search_path = '' as $$
declare
    is_live boolean;
begin
    perform pg_advisory_xact_lock(hashtextextended(p_filename, 0));
    select deleted_at is null into is_live from public.videos where filename = p_filename;
    if is_live is null then
        insert into public.videos_settled values (p_filename, p_now) on conflict do nothing;
    end if;
    return jsonb_build_object('exists', coalesce(is_live, false));
end $$;

create or replace function public.videos_forget_settled(p_before timestamptz) returns jsonb
language sql set search_path = '' as $$
    delete from public.videos_settled where settled_at < p_before;
    select '{}'::jsonb;
$$;

-- Newest first, and among equals the last one added. Each kind of list is a statement of its own, so that each has the
-- plan of its own index.
create or replace function public.videos_page(p_owner uuid, p_search text, p_start bigint, p_limit integer)
returns jsonb language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan set jit = off as $$
declare
    everybody constant uuid := '00000000-0000-0000-0000-000000000000';
    pattern text := '%' || regexp_replace(p_search, '([\\%_])', '\\\1', 'g') || '%';
    total bigint;
    videos jsonb;
begin
    if p_search = '' then
        if p_owner = everybody then -- as a user's id it has no row of its own
            select count(*) into total from public.videos where deleted_at is null and user_id = p_owner;
        else
            select live into total from public.videos_totals where user_id = coalesce(p_owner, everybody);
        end if;
        if p_start >= coalesce(total, 0) then
            videos := '[]';
        elsif p_owner is null then
            select jsonb_agg(to_jsonb(page)) into videos from (
                select * from public.videos where deleted_at is null
                order by uploaded_at desc, seq desc limit p_limit offset p_start
            ) as page;
        else
            select jsonb_agg(to_jsonb(page)) into videos from (
                select * from public.videos where deleted_at is null and user_id = p_owner
                order by uploaded_at desc, seq desc limit p_limit offset p_start
            ) as page;
        end if;
    else
        select count(*) into total from public.videos
        where deleted_at is null and title_key like pattern and (p_owner is null or user_id = p_owner);
        select jsonb_agg(to_jsonb(page)) into videos from (
            select * from public.videos
            where deleted_at is null and title_key like pattern and (p_owner is null or user_id = p_owner)
            order by uploaded_at desc, seq desc limit p_limit offset p_start
        ) as page;
    end if;
    return jsonb_build_object('videos', coalesce(videos, '[]'), 'total', coalesce(total, 0));
end $$;

create or replace function public.videos_live_filenames(p_user_id uuid, p_most integer) returns jsonb
language sql stable set search_path = '' as $$
    select jsonb_build_object('filenames', coalesce(jsonb_agg(filename), '[]')) from (
        select filename from public.videos where user_id = p_user_id and deleted_at is null
        order by uploaded_at, seq limit p_most
    ) as live;
$$;

create or replace function public.videos_delete(
    p_filenames text[], p_owed jsonb, p_now timestamptz, p_lease timestamptz
) returns jsonb language plpgsql set search_path = '' as $$
declare
    moment timestamp := p_now at time zone 'utc';
    deleted integer;
begin
    perform from public.videos where filename = any (p_filenames) order by filename for update;
    -- Those deleted at this very moment were deleted by this call, whose answer was lost.
    update public.videos set deleted_at = moment
    where filename = any (p_filenames) and (deleted_at is null or deleted_at = moment);
    get diagnostics deleted = row_count;
    if deleted > 0 then
        perform public.videos_owe(p_owed, p_lease);
    end if;
    return jsonb_build_object('deleted', deleted);
end $$;

-- What is due, leased to the caller until p_lease; what another one is just claiming is passed over.
create or replace function public.videos_claim_owed(p_now timestamptz, p_lease timestamptz, p_most integer)
returns jsonb language sql set search_path = '' as $$
    with due as (
        select id from public.videos_outbox where due_at <= p_now order by due_at, seq limit p_most
        for update skip locked
    ), claimed as (
        update public.videos_outbox set due_at = p_lease from due where videos_outbox.id = due.id
        returning videos_outbox.*
    )
    select jsonb_build_object('owed', coalesce(jsonb_agg(to_jsonb(claimed) order by seq), '[]')) from claimed;
$$;

create or replace function public.videos_paid(p_id uuid) returns jsonb
language sql set search_path = '' as $$
    delete from public.videos_outbox where id = p_id;
    select '{}'::jsonb;
$$;

create or replace function public.videos_postpone(p_id uuid, p_attempts integer, p_due_at timestamptz) returns jsonb
language sql set search_path = '' as $$
    update public.videos_outbox set attempts = p_attempts, due_at = p_due_at where id = p_id;
    select '{}'::jsonb;
$$;

alter table public.videos enable row level security;
alter table public.videos_totals enable row level security;
alter table public.videos_settled enable row level security;
alter table public.videos_outbox enable row level security;
revoke all on public.videos, public.videos_totals, public.videos_settled, public.videos_outbox from anon, authenticated;
grant all on public.videos, public.videos_totals, public.videos_settled, public.videos_outbox to service_role;

revoke all on function public.videos_came, public.videos_went, public.videos_owe, public.videos_add, public.videos_settle,
    public.videos_forget_settled, public.videos_page, public.videos_live_filenames, public.videos_delete,
    public.videos_claim_owed, public.videos_paid, public.videos_postpone from public, anon, authenticated;
grant execute on function public.videos_came, public.videos_went, public.videos_owe, public.videos_add, public.videos_settle,
    public.videos_forget_settled, public.videos_page, public.videos_live_filenames, public.videos_delete,
    public.videos_claim_owed, public.videos_paid, public.videos_postpone to service_role;

insert into public.short_video_migrations (name) values ('20261125000200_videos') on conflict do nothing;
notify pgrst, 'reload schema';
