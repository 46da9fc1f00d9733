-- One of each kind of object that a backup could lose unnoticed. :clerk is a role of the test's own.
CREATE ROLE :clerk NOLOGIN;
CREATE SCHEMA legal;
CREATE SEQUENCE legal.case_number START 2026000;
CREATE TABLE legal.case_file (
    id bigint PRIMARY KEY DEFAULT nextval('legal.case_number'),
    attributes jsonb NOT NULL
);
CREATE TABLE legal.evidence (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id bigint NOT NULL REFERENCES legal.case_file,
    sealed bytea NOT NULL,
    scan oid
);
CREATE TABLE legal.access_log (at date NOT NULL, actor text NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE legal.access_log_h1 PARTITION OF legal.access_log FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE legal.access_log_h2 PARTITION OF legal.access_log FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
CREATE TABLE "Odd Name" (n int);
CREATE VIEW legal.busy_case AS SELECT case_id, count(*) AS pieces FROM legal.evidence GROUP BY case_id;

INSERT INTO legal.case_file (attributes) SELECT jsonb_build_object('priority', n % 3) FROM generate_series(1, 20) n;
INSERT INTO legal.evidence (case_id, sealed)
SELECT 2026000 + n % 20, sha512(n::text::bytea) FROM generate_series(1, 700) n;
UPDATE legal.evidence SET scan = lo_from_bytea(0, sealed) WHERE id % 100 = 0;
INSERT INTO legal.access_log SELECT date '2026-01-01' + n, 'clerk' FROM generate_series(0, 299) n;
INSERT INTO "Odd Name" VALUES (1), (2), (3);

ALTER SCHEMA legal OWNER TO :clerk;
GRANT SELECT ON legal.evidence TO :clerk;
