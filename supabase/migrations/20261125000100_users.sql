-- user-service: accounts, and each user's upload lock.

create table if not exists public.users (
    id uuid primary key default gen_random_uuid(),
    email text not null,
    password text not null,
    username text not null,
    created_at timestamptz not null default now(),
    role text not null default 'user',
    uploading timestamptz
);

-- `email_key` is what two spellings of an address have in common, `uploading_by` whose the lock is since `uploading`.
alter table public.users
    add column if not exists email_key text,
    add column if not exists uploading_by text;

-- The service gives the key with the address. Whoever writes an address alone, as in Supabase's dashboard, gets the
-- key that the service would give to any but rare letters.
create or replace function public.users_key() returns trigger
language plpgsql set search_path = '' as $$
begin
    if new.email_key is null or (tg_op = 'UPDATE' and new.email <> old.email and new.email_key = old.email_key) then
        new.email_key := lower(normalize(btrim(new.email)));
    end if;
    return new;
end $$;

create or replace trigger users_keyed before insert or update of email on public.users
    for each row execute function public.users_key();

-- Those that were there before.
update public.users set
    email = email,
    username = coalesce(username, split_part(btrim(email), '@', 1)),
    created_at = coalesce(created_at, now()),
    role = coalesce(role, 'user')
where email_key is null or username is null or created_at is null or role is null;

do $$
begin
    if not exists (select from pg_index where indrelid = 'public.users'::regclass and indisprimary) then
        alter table public.users add primary key (id);
    end if;
end $$;

alter table public.users
    alter column id set default gen_random_uuid(),
    alter column email set not null,
    alter column email_key set not null,
    alter column password set not null,
    alter column username set not null,
    alter column created_at set not null,
    alter column created_at set default now(),
    alter column role set not null,
    alter column role set default 'user',
    drop constraint if exists users_known_role,
    add constraint users_known_role check (role in ('user', 'admin'));

-- Not `users_email_key`: that is PostgreSQL's own name for an older `unique (email)`.
create unique index if not exists users_by_key on public.users (email_key);
create unique index if not exists users_by_email on public.users (lower(email));

create or replace function public.users_add(p_user jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
    account public.users := jsonb_populate_record(null::public.users, p_user);
begin
    insert into public.users (id, email, email_key, password, username, created_at, role)
    values (account.id, account.email, account.email_key, account.password, account.username, account.created_at,
            account.role)
    on conflict do nothing;
    -- It is there by this call, or by an earlier one whose answer was lost.
    return jsonb_build_object('added', exists (select from public.users where id = account.id));
end $$;

-- By a function, so that no address stands in a URL, which has an end and is written to logs.
create or replace function public.users_by_email(p_key text) returns jsonb
language sql stable set search_path = '' as $$
    select jsonb_build_object('user', (select to_jsonb(users) from public.users where email_key = p_key));
$$;

create or replace function public.users_set_role(p_key text, p_role text) returns jsonb
language plpgsql set search_path = '' as $$
begin
    update public.users set role = p_role where email_key = p_key;
    return jsonb_build_object('found', found);
end $$;

create or replace function public.users_lock_upload(
    p_user_id uuid, p_holder text, p_now timestamptz, p_stale_before timestamptz
) returns jsonb language plpgsql set search_path = '' as $$
begin
    update public.users set uploading = p_now, uploading_by = p_holder
    where id = p_user_id and (uploading is null or uploading < p_stale_before or uploading_by = p_holder);
    if found then
        return '{"taken": true}';
    elsif exists (select from public.users where id = p_user_id) then
        return '{"taken": false}';
    end if;
    return '{"taken": null}';
end $$;

create or replace function public.users_unlock_upload(p_user_id uuid, p_holder text) returns jsonb
language sql set search_path = '' as $$
    update public.users set uploading = null, uploading_by = null where id = p_user_id and uploading_by = p_holder;
    select '{}'::jsonb;
$$;

alter table public.users enable row level security;
revoke all on public.users from anon, authenticated;
grant all on public.users to service_role;

revoke all on function public.users_key, public.users_add, public.users_by_email, public.users_set_role,
    public.users_lock_upload, public.users_unlock_upload from public, anon, authenticated;
grant execute on function public.users_key, public.users_add, public.users_by_email, public.users_set_role,
    public.users_lock_upload, public.users_unlock_upload to service_role;

insert into public.short_video_migrations (name) values ('20261125000100_users') on conflict do nothing;
notify pgrst, 'reload schema';
