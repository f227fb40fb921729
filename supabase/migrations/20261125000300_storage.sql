-- storage-service: the quota ledger, and the objects it stands for.
--
-- Whoever changes what an object holds of its owner's quota has locked the owner's row of the ledger first, and where
-- there are several owners, in the order of their ids: so nobody waits for each other in a circle.

-- Bytes. One row a user: the quota is one comparison.
create table if not exists public.storage_ledger (
    user_id uuid primary key,
    kept bigint not null default 0 check (kept >= 0),
    reserved bigint not null default 0 check (reserved >= 0)
);

create table if not exists public.storage_objects (
    filename text primary key,
    user_id uuid not null references public.storage_ledger,
    state text not null check (state in ('reserved', 'stored', 'kept', 'deleted')),
    granted bigint not null check (granted > 0),
    size bigint check (size between 0 and granted),
    content_type text,
    duration float8,
    width integer,
    height integer,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    remove_at timestamptz,
    removals integer not null default 0 check (removals >= 0)
);
create index if not exists storage_objects_of_user on public.storage_objects (user_id);
create index if not exists storage_objects_expiring on public.storage_objects (state, expires_at)
    where state in ('reserved', 'stored');
create index if not exists storage_objects_removable on public.storage_objects (remove_at) where remove_at is not null;

-- The bytes granted; null if not even the least fits; `gone` if the filename is another user's or deleted.
create or replace function public.storage_reserve(
    p_filename text, p_user_id uuid, p_least bigint, p_most bigint, p_limit bigint, p_now timestamptz,
    p_until timestamptz
) returns jsonb language plpgsql set search_path = '' as $$
declare
    room bigint;
    known public.storage_objects;
    fits bigint;
begin
    insert into public.storage_ledger (user_id) values (p_user_id) on conflict do nothing;
    select p_limit - kept - reserved into room from public.storage_ledger where user_id = p_user_id for update;
    select * into known from public.storage_objects where filename = p_filename;
    if found then
        if known.user_id <> p_user_id or known.state = 'deleted' then
            return '{"granted": null, "gone": true}';
        end if;
        update public.storage_objects set expires_at = p_until where filename = p_filename;
        return jsonb_build_object('granted', known.granted, 'gone', false);
    end if;
    if room < p_least then
        return '{"granted": null, "gone": false}';
    end if;
    fits := least(p_most, room);
    insert into public.storage_objects (filename, user_id, state, granted, created_at, expires_at)
    values (p_filename, p_user_id, 'reserved', fits, p_now, p_until);
    update public.storage_ledger set reserved = reserved + fits where user_id = p_user_id;
    return jsonb_build_object('granted', fits, 'gone', false);
end $$;

create or replace function public.storage_store(
    p_filename text, p_size bigint, p_content_type text, p_duration float8, p_width integer, p_height integer
) returns jsonb language plpgsql set search_path = '' as $$
begin
    update public.storage_objects
    set state = 'stored', size = p_size, content_type = p_content_type, duration = p_duration, width = p_width,
        height = p_height
    where filename = p_filename and (state = 'reserved' and granted >= p_size or state = 'stored' and size = p_size);
    return jsonb_build_object('stored', found);
end $$;

create or replace function public.storage_lock_owners(p_filenames text[]) returns void
language plpgsql set search_path = '' as $$
begin
    perform from public.storage_ledger
    where user_id in (select user_id from public.storage_objects where filename = any (p_filenames))
    order by user_id for update;
end $$;

create or replace function public.storage_keep(p_filenames text[]) returns jsonb
language plpgsql set search_path = '' as $$
begin
    perform public.storage_lock_owners(p_filenames);
    with kept as (
        update public.storage_objects set state = 'kept' where filename = any (p_filenames) and state = 'stored'
        returning user_id, granted, size
    ), sums as (
        select user_id, sum(granted) as granted, sum(size) as size from kept group by user_id
    )
    update public.storage_ledger as ledger
    set reserved = ledger.reserved - sums.granted, kept = ledger.kept + sums.size
    from sums where ledger.user_id = sums.user_id;
    return '{}';
end $$;

-- Bytes go back as they were held: a kept object's size, any other's grant. Of those that expired nothing but what is
-- still reserved: what was stored meanwhile must be asked about.
create or replace function public.storage_free(p_filenames text[], p_now timestamptz, p_expired_only boolean)
returns integer language plpgsql set search_path = '' as $$
declare
    freed integer;
begin
    perform public.storage_lock_owners(p_filenames);
    with before as (
        select filename, state from public.storage_objects
        where filename = any (p_filenames)
            and case when p_expired_only then state = 'reserved' and expires_at <= p_now else state <> 'deleted' end
        for update
    ), gone as (
        update public.storage_objects as object set state = 'deleted', remove_at = p_now
        from before where object.filename = before.filename
        returning object.user_id,
            case when before.state = 'kept' then object.size else 0 end as kept,
            case when before.state = 'kept' then 0 else object.granted end as reserved
    ), sums as (
        select user_id, sum(kept) as kept, sum(reserved) as reserved, count(*) as objects from gone group by user_id
    ), ledgers as (
        update public.storage_ledger as ledger
        set kept = ledger.kept - sums.kept, reserved = ledger.reserved - sums.reserved
        from sums where ledger.user_id = sums.user_id
        returning sums.objects
    )
    select coalesce(sum(objects), 0) into freed from ledgers;
    return freed;
end $$;

create or replace function public.storage_delete(p_filenames text[], p_now timestamptz) returns jsonb
language sql set search_path = '' as $$
    select jsonb_build_object('deleted', public.storage_free(p_filenames, p_now, false));
$$;

create or replace function public.storage_delete_expired(p_now timestamptz, p_most integer) returns jsonb
language sql set search_path = '' as $$
    select jsonb_build_object('deleted', public.storage_free(array(
        select filename from public.storage_objects where state = 'reserved' and expires_at <= p_now
        order by expires_at limit p_most
    ), p_now, true));
$$;

create or replace function public.storage_unkept(p_now timestamptz, p_most integer) returns jsonb
language sql stable set search_path = '' as $$
    select jsonb_build_object('filenames', coalesce(jsonb_agg(filename order by expires_at), '[]')) from (
        select filename, expires_at from public.storage_objects where state = 'stored' and expires_at <= p_now
        order by expires_at limit p_most
    ) as unkept;
$$;

create or replace function public.storage_removable(p_now timestamptz, p_most integer) returns jsonb
language sql stable set search_path = '' as $$
    select jsonb_build_object('filenames', coalesce(jsonb_agg(filename order by remove_at), '[]')) from (
        select filename, remove_at from public.storage_objects where remove_at <= p_now
        order by remove_at limit p_most
    ) as removable;
$$;

create or replace function public.storage_removed(p_filename text, p_now timestamptz, p_again_at timestamptz)
returns jsonb language sql set search_path = '' as $$
    delete from public.storage_objects
    where filename = p_filename and state = 'deleted' and remove_at <= p_now and removals > 0;
    update public.storage_objects set removals = 1, remove_at = p_again_at
    where filename = p_filename and state = 'deleted' and remove_at <= p_now;
    select '{}'::jsonb;
$$;

alter table public.storage_ledger enable row level security;
alter table public.storage_objects enable row level security;
revoke all on public.storage_ledger, public.storage_objects from anon, authenticated;
grant all on public.storage_ledger, public.storage_objects to service_role;

revoke all on function public.storage_reserve, public.storage_store, public.storage_lock_owners, public.storage_keep,
    public.storage_free, public.storage_delete, public.storage_delete_expired, public.storage_unkept,
    public.storage_removable, public.storage_removed from public, anon, authenticated;
grant execute on function public.storage_reserve, public.storage_store, public.storage_lock_owners, public.storage_keep,
    public.storage_free, public.storage_delete, public.storage_delete_expired, public.storage_unkept,
    public.storage_removable, public.storage_removed to service_role;

insert into public.short_video_migrations (name) values ('20261125000300_storage') on conflict do nothing;
notify pgrst, 'reload schema';
