-- video-service and logging-service: lists that go on behind a place. `p_time` and `p_seq` are those of the last row of
-- the page before; an index finds them as fast deep in the list as at its beginning. Where they are null, `p_start` rows
-- are skipped. `next_seq` is the number of the page's last row, null where the list ends with it.
--
-- videos_page and logs_page stay: the revisions before this one call them until the traffic has moved.

-- Newest first, and among equals the last one added. Each kind of list is a statement of its own, so that each has the
-- plan of its own index. The user's list begins its order with user_id, so that one user's videos are never picked out
-- of everybody's.
create or replace function public.videos_list(
    p_owner uuid, p_search text, p_start bigint, p_time timestamptz, p_seq bigint, p_limit integer
) returns jsonb language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan set jit = off as $$
declare
    everybody constant uuid := '00000000-0000-0000-0000-000000000000';
    pattern text := '%' || regexp_replace(p_search, '([\\%_])', '\\\1', 'g') || '%';
    place timestamptz := coalesce(p_time, 'infinity');
    place_seq bigint := coalesce(p_seq, 9223372036854775807);
    skipped bigint := case when p_time is null then p_start else 0 end;
    total bigint;
    videos jsonb := '[]';
    next_seq bigint;
begin
    if p_search <> '' then
        select count(*) into total from public.videos
        where deleted_at is null and title_key like pattern and (p_owner is null or user_id = p_owner);
    elsif p_owner = everybody then -- as a user's id it has no row of its own
        select count(*) into total from public.videos where deleted_at is null and user_id = p_owner;
    else
        select live into total from public.videos_totals where user_id = coalesce(p_owner, everybody);
    end if;
    total := coalesce(total, 0);
    -- One row more than the page has tells that the list goes on.
    if skipped >= total then
        null; -- past the end
    elsif p_search <> '' then
        select jsonb_agg(to_jsonb(page)) into videos from (
            select * from public.videos
            where deleted_at is null and title_key like pattern and (p_owner is null or user_id = p_owner)
                and (uploaded_at, seq) < (place, place_seq)
            order by uploaded_at desc, seq desc limit p_limit + 1 offset skipped
        ) as page;
    elsif p_owner is null then
        select jsonb_agg(to_jsonb(page)) into videos from (
            select * from public.videos where deleted_at is null and (uploaded_at, seq) < (place, place_seq)
            order by uploaded_at desc, seq desc limit p_limit + 1 offset skipped
        ) as page;
    else
        select jsonb_agg(to_jsonb(page)) into videos from (
            select * from public.videos
            where deleted_at is null
                and user_id >= p_owner and (user_id, uploaded_at, seq) < (p_owner, place, place_seq)
            order by user_id desc, uploaded_at desc, seq desc limit p_limit + 1 offset skipped
        ) as page;
    end if;
    videos := coalesce(videos, '[]');
    if jsonb_array_length(videos) > p_limit then
        videos := videos - p_limit;
        next_seq := (videos -> (p_limit - 1) ->> 'seq')::bigint;
    end if;
    return jsonb_build_object('videos', videos, 'total', total, 'next_seq', next_seq);
end $$;

-- Newest first, and among equals the last one written. Where the page begins is found in the index alone: what is
-- skipped is never read. `between` and not `=`, so that one user's logs are never picked out of everybody's. The time
-- is answered as the service keeps it: of fixed width, in UTC.
create or replace function public.logs_list(
    p_user_id uuid, p_start bigint, p_time timestamptz, p_seq bigint, p_length integer
) returns jsonb language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan as $$
declare
    everybody constant uuid := '00000000-0000-0000-0000-000000000000';
    total bigint;
    first record;
    rows public.logs[];
    logs jsonb := '[]';
    next_seq bigint;
begin
    if p_user_id = everybody then -- as a user's id it has no row of its own
        select count(*) into total from public.logs where user_id = p_user_id;
    else
        select totals.logs into total from public.logs_totals as totals
        where user_id = coalesce(p_user_id, everybody);
    end if;
    total := coalesce(total, 0);
    if p_time is not null then
        select p_time at time zone 'utc' as created_at, p_seq - 1 as seq into first;
    elsif p_start >= total then
        return jsonb_build_object('logs', logs, 'total', total, 'next_seq', next_seq); -- past the end
    elsif p_user_id is null then
        select created_at, seq into first from public.logs
        order by created_at desc, seq desc limit 1 offset p_start;
    else
        select created_at, seq into first from public.logs
        where user_id between p_user_id and p_user_id
        order by user_id desc, created_at desc, seq desc limit 1 offset p_start;
    end if;
    -- One row more than the page has tells that the list goes on.
    if p_user_id is null then
        rows := array(
            select log from public.logs as log where (created_at, seq) <= (first.created_at, first.seq)
            order by created_at desc, seq desc limit p_length + 1
        );
    else
        rows := array(
            select log from public.logs as log
            where user_id >= p_user_id and (user_id, created_at, seq) <= (p_user_id, first.created_at, first.seq)
            order by user_id desc, created_at desc, seq desc limit p_length + 1
        );
    end if;
    if cardinality(rows) > p_length then
        next_seq := rows[p_length].seq;
    end if;
    select jsonb_agg(jsonb_build_object(
        'id', id, 'user_id', user_id, 'action_type', action_type, 'description', description,
        'service_name', service_name, 'created_at', to_char(created_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    )) into logs from unnest(rows[:p_length]);
    return jsonb_build_object('logs', coalesce(logs, '[]'), 'total', total, 'next_seq', next_seq);
end $$;

revoke all on function public.videos_list, public.logs_list from public, anon, authenticated;
grant execute on function public.videos_list, public.logs_list to service_role;

insert into public.short_video_migrations (name) values ('20261128000000_cursors') on conflict do nothing;
notify pgrst, 'reload schema';
