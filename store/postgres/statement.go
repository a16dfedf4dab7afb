package postgres

// statement is the text of a prepared statement. All are listed here, so that one test asks
// for each one's plan, and another whether those of the version before run on the new schema.
type statement string

// Credentials.
const (
	putCredentials statement = `insert into credentials (tid, username, realm, texp, subject, issued, binding, kek, box)
select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::bigint[], $7::integer[], $8::text[], $9::bytea[])
on conflict (tid) do nothing`
	theseCredentials statement = `select tid, username, realm, texp, subject, issued, binding, kek, box from credentials where tid = any($1)`
	liveCredentials  statement = `select tid, username, realm, texp, subject, issued, binding, kek, box from credentials
where (texp, tid) > ($1, $2) order by texp, tid limit $3`
	pruneCredentials statement = `delete from credentials where tid = any(array(select tid from credentials where texp <= $1 order by texp limit $2))`
)

// Revocations.
const (
	addRevocation statement = `insert into revocations (id, tid, kid, subject, binding, issued_until, keep_live, expires)
values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (id) do update set expires = greatest(revocations.expires, excluded.expires)`
	liveRevocations  statement = `select tid, kid, subject, binding, issued_until, keep_live, expires from revocations where expires > $1`
	pruneRevocations statement = `delete from revocations where id = any(array(select id from revocations where expires <= $1 order by expires limit $2))`
)

// Keys, and the key-encryption keys.
const (
	addKey statement = `insert into keys (kind, kid, algorithm, not_before, not_after, state, created, kek, box)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (kind, kid) do nothing`
	oneKey    statement = `select kind, kid, algorithm, not_before, not_after, state, created, kek, box from keys where kind = $1 and kid = $2`
	kindKeys  statement = `select kind, kid, algorithm, not_before, not_after, state, created, kek, box from keys where kind = $1 order by kid`
	allKeys   statement = `select kind, kid, algorithm, not_before, not_after, state, created, kek, box from keys order by kind, kid`
	setKey    statement = `update keys set state = $4, not_before = $5, not_after = $6 where kind = $1 and kid = $2 and state = $3`
	deleteKey statement = `delete from keys where kind = $1 and kid = $2`
	// Reading what is not under the current key as two ranges lets the index be used.
	olderCredentials statement = `select tid, username, realm, texp, subject, issued, binding, kek, box from credentials where kek < $1
union all select tid, username, realm, texp, subject, issued, binding, kek, box from credentials where kek > $1 limit $2`
	resealCredential statement = `update credentials set kek = $2, box = $3 where tid = $1`
	resealKey        statement = `update keys set kek = $3, box = $4 where kind = $1 and kid = $2`
	allChecks        statement = `select kek, box from kek_checks`
	addCheck         statement = `insert into kek_checks (kek, box) values ($1, $2) on conflict (kek) do nothing`
	deleteChecks     statement = `delete from kek_checks where kek <> $1`
)

// Changes.
const (
	addChange    statement = `insert into changes (kind, id) values ($1, $2)`
	notify       statement = `select pg_notify($1, $2)`
	databaseTime statement = `select current_timestamp`
	newChanges   statement = `select seq, at, kind, id from changes where (at, seq) > ($1, $2) order by at, seq limit $3`
	pruneChanges statement = `delete from changes where seq = any(array(select seq from changes where at <= $1 order by at limit $2))`
)

// Relays and edges.
const (
	putRelay statement = `insert into relays (name, address, uris, weight, region, state, kids)
values ($1, $2, $3, $4, $5, $6, '{}') on conflict (name) do update
set address = excluded.address, uris = excluded.uris, weight = excluded.weight, region = excluded.region`
	setRelayState statement = `update relays set state = $2 where name = $1`
	lockRelay     statement = `select kids from relays where name = $1 for update`
	seeRelay      statement = `update relays set kids = $2, last_seen = $3 where name = $1`
	deleteRelay   statement = `delete from relays where name = $1`
	allRelays     statement = `select name, address, uris, weight, region, state, kids, last_seen from relays order by name`
	nextEpoch     statement = `insert into edges (name, epoch) values ($1, $2) on conflict (name) do update
set epoch = greatest(edges.epoch + 1, excluded.epoch) returning epoch`
	raiseEpoch statement = `insert into edges (name, epoch) values ($1, $2) on conflict (name) do update
set epoch = greatest(edges.epoch, excluded.epoch) returning epoch`
	allEdges statement = `select name, epoch from edges order by name`
)

// Clients and users.
const (
	addClient statement = `insert into clients (id, name, redirect_uris, grant_types, scopes, audiences, secret_hash, disabled, created, data)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict (id) do nothing`
	setClient statement = `update clients set name = $2, redirect_uris = $3, grant_types = $4, scopes = $5, audiences = $6, secret_hash = $7, disabled = $8, data = $9 where id = $1`
	oneClient statement = `select id, name, redirect_uris, grant_types, scopes, audiences, secret_hash, disabled, created, data from clients where id = $1`

	allClients   statement = `select id, name, redirect_uris, grant_types, scopes, audiences, secret_hash, disabled, created, data from clients order by id`
	deleteClient statement = `delete from clients where id = $1`

	addUser statement = `insert into users (name, password_hash, impi, impus, class, disabled, created)
values ($1, $2, $3, $4, $5, $6, $7) on conflict (name) do nothing`
	setUser    statement = `update users set password_hash = $2, impi = $3, impus = $4, class = $5, disabled = $6 where name = $1`
	oneUser    statement = `select name, password_hash, impi, impus, class, disabled, created from users where name = $1`
	allUsers   statement = `select name, password_hash, impi, impus, class, disabled, created from users order by name`
	deleteUser statement = `delete from users where name = $1`
)

// Grants.
const (
	addGrant statement = `insert into grants (kind, hash, family, client, usr, expires, data)
values ($1, $2, $3, $4, $5, $6, $7) on conflict (hash) do nothing`
	consumeGrant statement = `update grants set used = $3 where kind = $1 and hash = $2 and used is null and expires > $3
and not exists (select 1 from grant_families f where f.family = grants.family)
returning family, client, usr, expires, data`
	oneGrant     statement = `select family, client, usr, expires, data, used from grants where kind = $1 and hash = $2`
	revokeFamily statement = `insert into grant_families (family, expires) values ($1, $2)
on conflict (family) do update set expires = greatest(grant_families.expires, excluded.expires)`
	familyRevoked statement = `select exists (select 1 from grant_families where family = $1)`
	pruneGrants   statement = `delete from grants where hash = any(array(select hash from grants where expires <= $1 order by expires limit $2))`
	pruneFamilies statement = `delete from grant_families where family = any(array(select family from grant_families where expires <= $1 order by expires limit $2))`
)

// Loans.
const (
	addIdentity statement = `insert into identities (impi, impus, class, holder, lent)
values ($1, $2, $3, '', '1970-01-01 00:00:00+00') on conflict (impi) do nothing`
	oneIdentity    statement = `select impi, impus, class, holder, lent from identities where impi = $1`
	deleteIdentity statement = `delete from identities where impi = $1 and lent <= $2`
	// A row that another borrower holds is skipped: it will be lent.
	acquire statement = `update identities set holder = $2, lent = $3
where impi = (select impi from identities where class = $1 and lent <= $4 order by lent limit 1 for update skip locked)
returning impi, impus, class, holder, lent`
	changeLoan      statement = `update identities set holder = $3, lent = $4 where impi = $1 and holder = $2 and lent > $5`
	classIdentities statement = `select impi, impus, class, holder, lent from identities where class = $1 order by impi`
	allIdentities   statement = `select impi, impus, class, holder, lent from identities order by impi`
)

// Audit.
const (
	addEvent   statement = `insert into audit (at, actor, action, object, detail) values ($1, $2, $3, $4, $5)`
	someEvents statement = `select seq, at, actor, action, object, detail from audit
where (at, seq) > ($1, $2) and at < $3 order by at, seq limit $4`
	pruneAudit statement = `delete from audit where seq = any(array(select seq from audit where at <= $1 order by at limit $2))`
)

// statements are all of them.
var statements = map[string]statement{
	"putCredentials": putCredentials, "theseCredentials": theseCredentials,
	"liveCredentials": liveCredentials, "pruneCredentials": pruneCredentials,
	"addRevocation": addRevocation, "liveRevocations": liveRevocations, "pruneRevocations": pruneRevocations,
	"addKey": addKey, "oneKey": oneKey, "kindKeys": kindKeys, "allKeys": allKeys, "setKey": setKey, "deleteKey": deleteKey,
	"olderCredentials": olderCredentials, "resealCredential": resealCredential, "resealKey": resealKey,
	"allChecks": allChecks, "addCheck": addCheck, "deleteChecks": deleteChecks,
	"addChange": addChange, "notify": notify, "databaseTime": databaseTime, "newChanges": newChanges, "pruneChanges": pruneChanges,
	"putRelay": putRelay, "setRelayState": setRelayState, "lockRelay": lockRelay, "seeRelay": seeRelay, "deleteRelay": deleteRelay, "allRelays": allRelays,
	"nextEpoch": nextEpoch, "raiseEpoch": raiseEpoch, "allEdges": allEdges,
	"addClient": addClient, "setClient": setClient, "oneClient": oneClient, "allClients": allClients, "deleteClient": deleteClient,
	"addUser": addUser, "setUser": setUser, "oneUser": oneUser, "allUsers": allUsers, "deleteUser": deleteUser,
	"addGrant": addGrant, "consumeGrant": consumeGrant, "oneGrant": oneGrant, "revokeFamily": revokeFamily, "familyRevoked": familyRevoked,
	"pruneGrants": pruneGrants, "pruneFamilies": pruneFamilies,
	"addIdentity": addIdentity, "oneIdentity": oneIdentity, "deleteIdentity": deleteIdentity, "acquire": acquire, "changeLoan": changeLoan,
	"classIdentities": classIdentities, "allIdentities": allIdentities,
	"addEvent": addEvent, "someEvents": someEvents, "pruneAudit": pruneAudit,
}
