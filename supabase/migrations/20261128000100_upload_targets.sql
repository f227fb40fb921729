-- storage-service: an upload's bytes go straight to a session of the bucket, which has to be remembered.

-- The session's URI: a secret while it is open, so it goes when the object is stored.
alter table public.storage_objects add column if not exists session text;

-- `storage_reserve`, and the session that was noted for the upload. What is not reserved any more is gone.
create or replace function public.storage_claim(
    p_filename text, p_user_id uuid, p_least bigint, p_most bigint, p_limit bigint, p_now timestamptz,
    p_until timestamptz
) returns jsonb language plpgsql set search_path = '' as $$
declare
    answer jsonb := public.storage_reserve(p_filename, p_user_id, p_least, p_most, p_limit, p_now, p_until);
    known record;
begin
    if answer ->> 'granted' is null then
        return answer;
    end if;
    select state, session into known from public.storage_objects where filename = p_filename;
    if known.state <> 'reserved' then
        return '{"granted": null, "gone": true}';
    end if;
    return answer || jsonb_build_object('session', known.session);
end $$;

create or replace function public.storage_note_session(p_filename text, p_session text) returns jsonb
language plpgsql set search_path = '' as $$
begin
    update public.storage_objects set session = p_session
    where filename = p_filename and state = 'reserved' and coalesce(session, p_session) = p_session;
    return jsonb_build_object('noted', found);
end $$;

create or replace function public.storage_finish(
    p_filename text, p_size bigint, p_content_type text, p_duration float8, p_width integer, p_height integer
) returns jsonb language plpgsql set search_path = '' as $$
declare
    answer jsonb := public.storage_store(p_filename, p_size, p_content_type, p_duration, p_width, p_height);
begin
    if (answer ->> 'stored')::boolean then
        update public.storage_objects set session = null where filename = p_filename and session is not null;
    end if;
    return answer;
end $$;

-- The sessions of the uploads among them, which are to be cancelled.
create or replace function public.storage_delete_objects(p_filenames text[], p_now timestamptz) returns jsonb
language plpgsql set search_path = '' as $$
begin
    perform public.storage_free(p_filenames, p_now, false);
    return jsonb_build_object('sessions', coalesce((
        select jsonb_object_agg(filename, session) from public.storage_objects
        where filename = any (p_filenames) and session is not null
    ), '{}'));
end $$;

create or replace function public.storage_removable_objects(p_now timestamptz, p_most integer) returns jsonb
language sql stable set search_path = '' as $$
    select jsonb_build_object('sessions', coalesce(jsonb_object_agg(filename, session), '{}')) from (
        select filename, session from public.storage_objects where remove_at <= p_now order by remove_at limit p_most
    ) as removable;
$$;

revoke all on function public.storage_claim, public.storage_note_session, public.storage_finish,
    public.storage_delete_objects, public.storage_removable_objects from public, anon, authenticated;
grant execute on function public.storage_claim, public.storage_note_session, public.storage_finish,
    public.storage_delete_objects, public.storage_removable_objects to service_role;

insert into public.short_video_migrations (name) values ('20261128000100_upload_targets') on conflict do nothing;
notify pgrst, 'reload schema';
