-- What the WAF knows: clients, users, grants, identities to lend.

create table clients (
  id            text        primary key,
  name          text        not null,
  redirect_uris text[]      not null,
  grant_types   text[]      not null,
  scopes        text[]      not null,
  audiences     text[]      not null,
  secret_hash   bytea       not null, -- empty: a public client
  disabled      boolean     not null,
  created       timestamptz not null,
  data          bytea       not null
);

create table users (
  name          text        primary key,
  password_hash bytea       not null, -- argon2id in PHC form
  impi          text        not null,
  impus         text[]      not null,
  class         text        not null,
  disabled      boolean     not null,
  created       timestamptz not null
);

create table grants (
  hash    bytea       primary key, -- SHA-256 of the secret
  kind    text        not null,    -- code, refresh or initial-access
  family  text        not null,
  client  text        not null,
  usr     text        not null,
  expires timestamptz not null,
  used    timestamptz,             -- null: not yet
  data    bytea       not null
);

create index grants_expires on grants (expires);

-- Families that were revoked.
create table grant_families (
  family  text        primary key,
  expires timestamptz not null -- none of the family is good then
);

create index grant_families_expires on grant_families (expires);

create table identities (
  impi   text        primary key,
  impus  text[]      not null,
  class  text        not null,
  holder text        not null,
  lent   timestamptz not null -- until then
);

create index identities_free on identities (class, lent);
