-- acquire
update identities set holder = $2, lent = $3
where impi = (select impi from identities where class = $1 and lent <= $4 order by lent limit 1 for update skip locked)
returning impi, impus, class, holder, lent;

-- addChange
insert into changes (kind, id) values ($1, $2);

-- addCheck
insert into kek_checks (kek, box) values ($1, $2) on conflict (kek) do nothing;

-- addClient
insert into clients (id, name, redirect_uris, grant_types, scopes, audiences, secret_hash, disabled, created, data)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict (id) do nothing;

-- addEvent
insert into audit (at, actor, action, object, detail) values ($1, $2, $3, $4, $5);

-- addGrant
insert into grants (kind, hash, family, client, usr, expires, data)
values ($1, $2, $3, $4, $5, $6, $7) on conflict (hash) do nothing;

-- addIdentity
insert into identities (impi, impus, class, holder, lent)
values ($1, $2, $3, '', '1970-01-01 00:00:00+00') on conflict (impi) do nothing;

-- addKey
insert into keys (kind, kid, algorithm, not_before, not_after, state, created, kek, box)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (kind, kid) do nothing;

-- addRevocation
insert into revocations (id, tid, kid, subject, binding, issued_until, keep_live, expires)
values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (id) do update set expires = greatest(revocations.expires, excluded.expires);

-- addUser
insert into users (name, password_hash, impi, impus, class, disabled, created)
values ($1, $2, $3, $4, $5, $6, $7) on conflict (name) do nothing;

-- allChecks
select kek, box from kek_checks;

-- allClients
select id, name, redirect_uris, grant_types, scopes, audiences, secret_hash, disabled, created, data from clients order by id;

-- allEdges
select name, epoch from edges order by name;

-- allIdentities
select impi, impus, class, holder, lent from identities order by impi;

-- allKeys
select kind, kid, algorithm, not_before, not_after, state, created, kek, box from keys order by kind, kid;

-- allRelays
select name, address, uris, weight, region, state, kids, last_seen from relays order by name;

-- allUsers
select name, password_hash, impi, impus, class, disabled, created from users order by name;

-- changeLoan
update identities set holder = $3, lent = $4 where impi = $1 and holder = $2 and lent > $5;

-- classIdentities
select impi, impus, class, holder, lent from identities where class = $1 order by impi;

-- consumeGrant
update grants set used = $3 where kind = $1 and hash = $2 and used is null and expires > $3
and not exists (select 1 from grant_families f where f.family = grants.family)
returning family, client, usr, expires, data;

-- databaseTime
select current_timestamp;

-- deleteChecks
delete from kek_checks where kek <> $1;

-- deleteClient
delete from clients where id = $1;

-- deleteIdentity
delete from identities where impi = $1 and lent <= $2;

-- deleteKey
delete from keys where kind = $1 and kid = $2;

-- deleteRelay
delete from relays where name = $1;

-- deleteUser
delete from users where name = $1;

-- familyRevoked
select exists (select 1 from grant_families where family = $1);

-- kindKeys
select kind, kid, algorithm, not_before, not_after, state, created, kek, box from keys where kind = $1 order by kid;

-- liveCredentials
select tid, username, realm, texp, subject, issued, binding, kek, box from credentials
where (texp, tid) > ($1, $2) order by texp, tid limit $3;

-- liveRevocations
select tid, kid, subject, binding, issued_until, keep_live, expires from revocations where expires > $1;

-- lockRelay
select kids from relays where name = $1 for update;

-- newChanges
select seq, at, kind, id from changes where (at, seq) > ($1, $2) order by at, seq limit $3;

-- nextEpoch
insert into edges (name, epoch) values ($1, $2) on conflict (name) do update
set epoch = greatest(edges.epoch + 1, excluded.epoch) returning epoch;

-- notify
select pg_notify($1, $2);

-- olderCredentials
select tid, username, realm, texp, subject, issued, binding, kek, box from credentials where kek < $1
union all select tid, username, realm, texp, subject, issued, binding, kek, box from credentials where kek > $1 limit $2;

-- oneClient
select id, name, redirect_uris, grant_types, scopes, audiences, secret_hash, disabled, created, data from clients where id = $1;

-- oneGrant
select family, client, usr, expires, data, used from grants where kind = $1 and hash = $2;

-- oneIdentity
select impi, impus, class, holder, lent from identities where impi = $1;

-- oneKey
select kind, kid, algorithm, not_before, not_after, state, created, kek, box from keys where kind = $1 and kid = $2;

-- oneUser
select name, password_hash, impi, impus, class, disabled, created from users where name = $1;

-- pruneAudit
delete from audit where seq = any(array(select seq from audit where at <= $1 order by at limit $2));

-- pruneChanges
delete from changes where seq = any(array(select seq from changes where at <= $1 order by at limit $2));

-- pruneCredentials
delete from credentials where tid = any(array(select tid from credentials where texp <= $1 order by texp limit $2));

-- pruneFamilies
delete from grant_families where family = any(array(select family from grant_families where expires <= $1 order by expires limit $2));

-- pruneGrants
delete from grants where hash = any(array(select hash from grants where expires <= $1 order by expires limit $2));

-- pruneRevocations
delete from revocations where id = any(array(select id from revocations where expires <= $1 order by expires limit $2));

-- putCredentials
insert into credentials (tid, username, realm, texp, subject, issued, binding, kek, box)
select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::bigint[], $7::integer[], $8::text[], $9::bytea[])
on conflict (tid) do nothing;

-- putRelay
insert into relays (name, address, uris, weight, region, state, kids)
values ($1, $2, $3, $4, $5, $6, '{}') on conflict (name) do update
set address = excluded.address, uris = excluded.uris, weight = excluded.weight, region = excluded.region;

-- raiseEpoch
insert into edges (name, epoch) values ($1, $2) on conflict (name) do update
set epoch = greatest(edges.epoch, excluded.epoch) returning epoch;

-- resealCredential
update credentials set kek = $2, box = $3 where tid = $1;

-- resealKey
update keys set kek = $3, box = $4 where kind = $1 and kid = $2;

-- revokeFamily
insert into grant_families (family, expires) values ($1, $2)
on conflict (family) do update set expires = greatest(grant_families.expires, excluded.expires);

-- seeRelay
update relays set kids = $2, last_seen = $3 where name = $1;

-- setClient
update clients set name = $2, redirect_uris = $3, grant_types = $4, scopes = $5, audiences = $6, secret_hash = $7, disabled = $8, data = $9 where id = $1;

-- setKey
update keys set state = $4, not_before = $5, not_after = $6 where kind = $1 and kid = $2 and state = $3;

-- setRelayState
update relays set state = $2 where name = $1;

-- setUser
update users set password_hash = $2, impi = $3, impus = $4, class = $5, disabled = $6 where name = $1;

-- someEvents
select seq, at, actor, action, object, detail from audit
where (at, seq) > ($1, $2) and at < $3 order by at, seq limit $4;

-- theseCredentials
select tid, username, realm, texp, subject, issued, binding, kek, box from credentials where tid = any($1);

