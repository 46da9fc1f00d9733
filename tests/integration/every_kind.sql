-- What the default contract must bear without a word: one of each kind of thing that a check could trip over.
CREATE SCHEMA "Odd Schema";
CREATE EXTENSION hstore;
CREATE EXTENSION citext SCHEMA "Odd Schema";
CREATE EXTENSION file_fdw;
CREATE EXTENSION btree_gist;
CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

-- Domains: of a domain, of an array, of an enum, of a composite; a constraint that is NOT VALID.
CREATE TYPE mood AS ENUM ('calm', 'stern');
CREATE TYPE point3 AS (x int, y int, z int);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN small_positive AS positive NOT NULL CHECK (VALUE < 1000);
CREATE DOMAIN tags AS text[] CHECK (cardinality(VALUE) < 5);
CREATE DOMAIN a_mood AS mood CHECK (VALUE <> 'stern' OR VALUE IS NULL);
CREATE DOMAIN code AS char(4) CHECK (VALUE ~ '^[A-Z]{2}  $');
CREATE TABLE "Odd Schema"."Odd ""Table""" (
    "select" small_positive, "Tags" tags, mood a_mood DEFAULT 'calm', code code, position point3 NOT NULL
);
INSERT INTO "Odd Schema"."Odd ""Table""" VALUES
    (1, '{a,b}', 'calm', 'AB', ROW(NULL, NULL, NULL)), (999, NULL, NULL, NULL, ROW(1, 2, 3));
ALTER DOMAIN positive ADD CONSTRAINT later CHECK (VALUE > 100) NOT VALID;

-- Constraints: on the whole row, by a function, on tableoid, NO INHERIT, NOT VALID, on a column that was dropped since.
CREATE FUNCTION is_plausible(anyelement) RETURNS boolean LANGUAGE sql AS 'SELECT $1 IS NOT NULL';
CREATE TABLE parent (id int, gone text, note text, CHECK (is_plausible(parent.*)) NO INHERIT, CHECK (tableoid <> 0));
ALTER TABLE parent ADD CONSTRAINT only_here CHECK (id < 10) NO INHERIT;
INSERT INTO parent VALUES (1, 'x', 'y'), (9, 'x', 'y');
CREATE TABLE child (extra int GENERATED ALWAYS AS (id * 2) STORED) INHERITS (parent);
INSERT INTO child VALUES (100, 'x', 'y');
ALTER TABLE parent DROP COLUMN gone;
ALTER TABLE parent ADD CONSTRAINT one_day CHECK (id > 5) NOT VALID;

-- Foreign keys: to itself, MATCH FULL, deferrable, NOT VALID, of other types than what they refer to, of two columns in
-- another order, from and to partitioned tables; by an enum, an array and a text under another collation.
CREATE TABLE person (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chief bigint REFERENCES person DEFERRABLE INITIALLY DEFERRED,
    name text COLLATE "C" UNIQUE,
    mood mood UNIQUE,
    labels text[] UNIQUE,
    region int, number numeric, UNIQUE (region, number)
);
INSERT INTO person (chief, name, mood, labels, region, number)
VALUES (2, 'Ada', 'calm', '{a}', 1, 1), (1, 'Bob', 'stern', '{b}', 1, 2), (NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE refers (
    person smallint REFERENCES person,
    name varchar(20) REFERENCES person (name),
    mood mood REFERENCES person (mood),
    labels tags REFERENCES person (labels),
    number bigint, region smallint,
    FOREIGN KEY (number, region) REFERENCES person (number, region) MATCH FULL
);
INSERT INTO refers VALUES (1, 'Ada', 'calm', '{b}', 2, 1), (NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE half (region int, number numeric, FOREIGN KEY (region, number) REFERENCES person (region, number));
INSERT INTO half VALUES (47, NULL);
CREATE TABLE lapsed (person bigint);
INSERT INTO lapsed VALUES (47);
ALTER TABLE lapsed ADD FOREIGN KEY (person) REFERENCES person NOT VALID;

CREATE TABLE log (id bigserial, at date, person bigint REFERENCES person, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE log_old PARTITION OF log FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
CREATE TABLE log_new (at date NOT NULL, person bigint, id bigint NOT NULL);
ALTER TABLE log ATTACH PARTITION log_new DEFAULT;
INSERT INTO log (at, person) SELECT date '2025-12-25' + n, 1 + n % 2 FROM generate_series(0, 13) n;
CREATE TABLE remark (log_id bigint, log_at date, FOREIGN KEY (log_id, log_at) REFERENCES log);
INSERT INTO remark SELECT id, at FROM log;
CREATE TABLE hashed (word text PRIMARY KEY) PARTITION BY HASH (word);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO hashed SELECT 'word ' || n FROM generate_series(1, 50) n;
CREATE TABLE listed (kind text) PARTITION BY LIST (kind);
CREATE TABLE listed_null PARTITION OF listed FOR VALUES IN (NULL, 'a');
INSERT INTO listed VALUES (NULL), ('a');

-- Unique keys: an expression, a constant, a condition, NULLs alike or not, a collation that ignores case, patterns.
CREATE TABLE keys (id int, name text, gone int, state text);
CREATE UNIQUE INDEX ON keys (lower(name), (id + 1)) WHERE state <> 'deleted';
CREATE UNIQUE INDEX ON keys ((true)) WHERE state = 'the one';
CREATE UNIQUE INDEX ON keys (name COLLATE caseless, id) INCLUDE (state) WHERE state <> 'deleted';
CREATE UNIQUE INDEX ON keys (state text_pattern_ops, id, name);
CREATE UNIQUE INDEX ON keys (id, name, state) NULLS NOT DISTINCT;
ALTER TABLE keys DROP COLUMN gone, ADD UNIQUE (id, name, state) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE keys ADD EXCLUDE USING gist (id WITH =, (state COLLATE "C") WITH =) WHERE (state = 'the one');
INSERT INTO keys VALUES (1, 'a', 'the one'), (1, 'a', 'deleted'), (1, NULL, 'x'), (2, 'A', NULL), (NULL, NULL, NULL);
CREATE TABLE citizens (name "Odd Schema".citext PRIMARY KEY, marks hstore);
INSERT INTO citizens VALUES ('Ada', 'a=>1'), ('Bob', NULL);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;

-- Sequences: never called, exhausted, descending, cycling, small, shared, of nobody, skipping for another writer, with
-- numbers given by hand outside of their bounds, behind a default that computes; behind an empty table.
CREATE SEQUENCE never_called;
CREATE SEQUENCE "Shared ('one')";
CREATE TABLE draws_a (id int DEFAULT nextval('"Shared (''one'')"') PRIMARY KEY);
CREATE TABLE draws_b (id numeric DEFAULT nextval('"Shared (''one'')"'::text::regclass), d numeric DEFAULT 'NaN');
INSERT INTO draws_a SELECT FROM generate_series(1, 3);
INSERT INTO draws_b SELECT FROM generate_series(1, 3);
CREATE TABLE small (id smallserial, down int GENERATED BY DEFAULT AS IDENTITY (INCREMENT -1), n int);
INSERT INTO small (n) SELECT generate_series(1, 5);
CREATE TABLE full_up (id smallint GENERATED ALWAYS AS IDENTITY (MAXVALUE 3));
INSERT INTO full_up SELECT FROM generate_series(1, 3);
CREATE TABLE round (id int GENERATED BY DEFAULT AS IDENTITY (MAXVALUE 3 CYCLE));
INSERT INTO round SELECT FROM generate_series(1, 5);
CREATE TABLE by_hand (id int GENERATED BY DEFAULT AS IDENTITY (MAXVALUE 999));
INSERT INTO by_hand VALUES (1000), (-1);
CREATE TABLE odd_numbers (id int GENERATED BY DEFAULT AS IDENTITY (INCREMENT 2));
INSERT INTO odd_numbers SELECT FROM generate_series(1, 3);
INSERT INTO odd_numbers VALUES (2), (4000);
CREATE TABLE computed (id text DEFAULT 'INV-' || nextval('never_called'), ten int DEFAULT nextval('never_called') * 10);
INSERT INTO computed VALUES ('INV-7', 70);
CREATE TABLE empty_one (id serial, other uuid);

-- What is not the database's own to keep: foreign, temporary and unlogged tables; and what is no table.
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE elsewhere (n int NOT NULL CHECK (n > 0)) SERVER files OPTIONS (filename '/nowhere/at/all');
CREATE UNLOGGED TABLE scratch (id serial PRIMARY KEY, n int CHECK (n > 0));
INSERT INTO scratch (n) VALUES (1), (2);
CREATE MATERIALIZED VIEW summary AS SELECT count(*) FROM log;
CREATE MATERIALIZED VIEW later AS SELECT 1 / 0 AS n WITH NO DATA;
CREATE VIEW broken_now AS SELECT 1 / 0 AS n;
CREATE TABLE guarded (id int PRIMARY KEY, secret text NOT NULL);
INSERT INTO guarded VALUES (1, 'x');
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE TABLE long_text (body text);
ALTER TABLE long_text ALTER body SET STORAGE EXTERNAL;
INSERT INTO long_text SELECT repeat('x', 100000) FROM generate_series(1, 5);
SELECT lo_from_bytea(0, 'large');
