-- Who takes part.

create table relays (
  name      text        primary key, -- of the certificate's SAN
  address   text        not null,    -- HOST:PORT of its credential interface
  uris      text[]      not null,
  weight    integer     not null,
  region    text        not null,
  state     text        not null,    -- active or draining
  kids      text[]      not null,    -- the keys that it has
  last_seen timestamptz              -- null: never
);

create table edges (
  name  text   primary key, -- of the certificate's SAN
  epoch bigint not null     -- grows with each start
);
