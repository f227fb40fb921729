-- Who PostgREST is. Of itself it may do nothing; it becomes the role that a key names. Limits as in a Supabase project.
\getenv password AUTHENTICATOR_PASSWORD
do $$
begin
    if not exists (select from pg_roles where rolname = 'authenticator') then
        create role authenticator noinherit;
    end if;
end $$;
alter role authenticator login noinherit password :'password';
grant anon, authenticated, service_role to authenticator;
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
