-- usage-service: each user's counters of each day, what has been counted, and the bytes that uploads have reserved.
--
-- Everything that is locked is locked in one order, so that nobody waits for each other in a circle: the upload (an
-- advisory lock), its events by kind and id, days by user and date, reservations by upload. What gives back many
-- reservations or forgets many events passes over what is locked, and waits for nobody. Whoever has a day's row locked
-- decides alone: without it nobody adds to that day's figures, nor makes or renews a reservation of it.

create table if not exists public.usage_days (
    user_id uuid not null,
    day date not null,
    uploaded bigint not null default 0 check (uploaded >= 0),
    streamed bigint not null default 0 check (streamed >= 0),
    uploads bigint not null default 0 check (uploads >= 0),
    deletions bigint not null default 0 check (deletions >= 0),
    primary key (user_id, day)
);

create table if not exists public.usage_events (
    kind text not null check (kind in ('upload', 'deletion', 'stream')),
    id text not null,
    user_id uuid not null,
    day date not null,
    size bigint not null check (size >= 0),
    primary key (kind, id)
);
create index if not exists usage_events_streamed on public.usage_events (day) where kind = 'stream';

create table if not exists public.usage_reservations (
    upload_id text primary key,
    user_id uuid not null,
    day date not null,
    granted bigint not null check (granted > 0),
    expires_at timestamptz not null
);
create index if not exists usage_reservations_of_day on public.usage_reservations (user_id, day);
create index if not exists usage_reservations_expiry on public.usage_reservations (expires_at);

-- One after the other of those who speak of one upload. (The 4 keeps clear of other services' locks by filename.)
create or replace function public.usage_lock_upload(p_upload_id text) returns void
language sql set search_path = '' as $$
    select pg_advisory_xact_lock(hashtextextended(p_upload_id, 4));
$$;

create or replace function public.usage_reserve(
    p_upload_id text, p_user_id uuid, p_least bigint, p_most bigint, p_limit bigint, p_day date,
    p_now timestamptz, p_expires timestamptz
) returns jsonb language plpgsql set search_path = '' as $$
declare
    owner uuid;
    size bigint;
    reserved_day date;
    used bigint;
begin
    perform public.usage_lock_upload(p_upload_id);
    select event.user_id, event.size into owner, size from public.usage_events as event
    where event.kind = 'upload' and event.id = p_upload_id;
    if not found then
        select held.user_id, held.day into owner, reserved_day from public.usage_reservations as held
        where held.upload_id = p_upload_id and held.expires_at > p_now;
    end if;
    if owner <> p_user_id then
        return '{"answer": "foreign", "bytes": 0}';
    elsif size is not null then
        return jsonb_build_object('answer', 'granted', 'bytes', size);
    end if;

    -- A reservation that is renewed after midnight stays on its own day; lost just now, it is made anew on this one.
    insert into public.usage_days (user_id, day)
    select distinct p_user_id, one from unnest(array[p_day, reserved_day]) as one where one is not null order by one
    on conflict do nothing;
    perform from public.usage_days where user_id = p_user_id and day in (p_day, reserved_day) order by day for update;

    -- What does not count below is dropped: a clock that is behind cannot renew it.
    delete from public.usage_reservations where upload_id = any (array(
        select upload_id from public.usage_reservations
        where expires_at <= p_now and (upload_id = p_upload_id or (user_id = p_user_id and day = p_day))
        order by upload_id for update
    ));

    update public.usage_reservations set expires_at = p_expires where upload_id = p_upload_id
    returning granted into size;
    if found then
        return jsonb_build_object('answer', 'granted', 'bytes', size);
    end if;

    select uploaded + coalesce((
        select sum(granted) from public.usage_reservations where user_id = p_user_id and day = p_day
    ), 0) into used from public.usage_days where user_id = p_user_id and day = p_day;
    if used + p_least > p_limit then
        return jsonb_build_object('answer', 'over', 'bytes', used);
    end if;
    size := least(p_most, p_limit - used);
    insert into public.usage_reservations (upload_id, user_id, day, granted, expires_at)
    values (p_upload_id, p_user_id, p_day, size, p_expires);
    return jsonb_build_object('answer', 'granted', 'bytes', size);
end $$;

create or replace function public.usage_release(p_upload_id text) returns jsonb
language sql set search_path = '' as $$
    select public.usage_lock_upload(p_upload_id);
    delete from public.usage_reservations where upload_id = p_upload_id;
    select '{}'::jsonb;
$$;

-- The event's row is what makes it count once: only who inserts it raises the counters.
create or replace function public.usage_count(p_events jsonb) returns jsonb
language sql set search_path = '' as $$
    with counted as (
        insert into public.usage_events (kind, id, user_id, day, size)
        select kind, id, user_id, day, size
        from jsonb_to_recordset(p_events) as event (kind text, id text, user_id uuid, day date, size bigint)
        order by kind, id
        on conflict (kind, id) do nothing
        returning kind, user_id, day, size
    )
    insert into public.usage_days as days (user_id, day, uploaded, streamed, uploads, deletions)
    select user_id, day,
           coalesce(sum(size) filter (where kind = 'upload'), 0),
           coalesce(sum(size) filter (where kind = 'stream'), 0),
           count(*) filter (where kind = 'upload'),
           count(*) filter (where kind = 'deletion')
    from counted group by user_id, day order by user_id, day
    on conflict (user_id, day) do update set
        uploaded = days.uploaded + excluded.uploaded,
        streamed = days.streamed + excluded.streamed,
        uploads = days.uploads + excluded.uploads,
        deletions = days.deletions + excluded.deletions;
    select '{}'::jsonb;
$$;

create or replace function public.usage_commit(p_upload jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
    upload public.usage_events := jsonb_populate_record(null::public.usage_events, p_upload);
begin
    perform public.usage_lock_upload(upload.id);
    select held.day into upload.day from public.usage_reservations as held
    where held.upload_id = upload.id and held.user_id = upload.user_id;
    if not found then
        upload.day := p_upload ->> 'day';
    end if;
    perform public.usage_count(jsonb_build_array(to_jsonb(upload)));
    delete from public.usage_reservations as held where held.upload_id = upload.id and held.user_id = upload.user_id;
    return '{}';
end $$;

create or replace function public.usage_day(p_user_id uuid, p_day date) returns jsonb
language sql stable set search_path = '' as $$
    select jsonb_build_object(
        'uploaded', coalesce(max(uploaded), 0), 'streamed', coalesce(max(streamed), 0),
        'uploads', coalesce(max(uploads), 0), 'deletions', coalesce(max(deletions), 0)
    ) from public.usage_days where user_id = p_user_id and day = p_day;
$$;

create or replace function public.usage_sweep(p_now timestamptz) returns jsonb
language sql set search_path = '' as $$
    with dropped as (
        delete from public.usage_reservations where upload_id = any (array(
            select upload_id from public.usage_reservations where expires_at <= p_now for update skip locked
        )) returning 1
    )
    select jsonb_build_object('dropped', count(*)) from dropped;
$$;

create or replace function public.usage_forget_streamed(p_before date, p_most integer) returns jsonb
language sql set search_path = '' as $$
    with forgotten as (
        delete from public.usage_events where kind = 'stream' and id = any (array(
            select id from public.usage_events where kind = 'stream' and day < p_before order by day limit p_most
            for update skip locked
        )) returning 1
    )
    select jsonb_build_object('forgotten', count(*)) from forgotten;
$$;

alter table public.usage_days enable row level security;
alter table public.usage_events enable row level security;
alter table public.usage_reservations enable row level security;
revoke all on public.usage_days, public.usage_events, public.usage_reservations from anon, authenticated;
grant all on public.usage_days, public.usage_events, public.usage_reservations to service_role;

revoke all on function public.usage_lock_upload, public.usage_reserve, public.usage_release, public.usage_count,
    public.usage_commit, public.usage_day, public.usage_sweep, public.usage_forget_streamed
    from public, anon, authenticated;
grant execute on function public.usage_lock_upload, public.usage_reserve, public.usage_release, public.usage_count,
    public.usage_commit, public.usage_day, public.usage_sweep, public.usage_forget_streamed to service_role;

insert into public.short_video_migrations (name) values ('20261125000400_usage') on conflict do nothing;
notify pgrst, 'reload schema';
