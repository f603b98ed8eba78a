-- A ledger that several birthmark daemons share. Nothing but tables: the same text serves what speaks PostgreSQL's protocol.

-- One row: its lock is the right to append.
CREATE TABLE head (
  one      boolean PRIMARY KEY CHECK (one),
  ledger   bytea  NOT NULL,  -- the ledger's random id, 16 octets
  format   bigint NOT NULL,  -- a daemon refuses a format that it does not know
  batch    bigint NOT NULL,  -- the newest batch
  sequence bigint NOT NULL,  -- the sequence number of its last entry
  chain    bytea  NOT NULL,  -- the chain hash after that
  closed   text              -- why nobody writes any more; NULL: they do
);

-- The truth. The daemons' role may add rows and read them, and nothing else.
CREATE TABLE journal (
  batch  bigint PRIMARY KEY, -- without gaps, in the order of the commits
  epoch  bigint NOT NULL,    -- the daemon's life that wrote it; 0: an operator
  first  bigint NOT NULL,    -- the sequence number of its first entry
  place  bigint NOT NULL,    -- where that begins in the journal files of every copy
  frames bytea  NOT NULL     -- as in a journal file
);

-- What the database itself keeps unique: each key ('k', SHA-256 of the SubjectPublicKeyInfo) and each device ('d', its id) has one
-- serial number. Derived from the journal.
CREATE TABLE names (
  name          bytea PRIMARY KEY,
  serial_number bytea NOT NULL
);

-- The units of each order that are used. Derived from the journal.
CREATE TABLE orders (
  id   text   PRIMARY KEY,
  used bigint NOT NULL,
  most bigint NOT NULL,
  CHECK (used BETWEEN 0 AND most)
);

-- Which daemons were heard of when. What counts, that one has ended, is in the journal.
CREATE TABLE daemons (
  epoch   bigint PRIMARY KEY,
  name    text NOT NULL,
  version text NOT NULL,
  started timestamptz NOT NULL,
  renewed timestamptz NOT NULL
);
