-- A small database as a company that stores legal evidence might have it: enough kinds of object that a
-- backup which loses one of them is noticed.
CREATE ROLE evidence_reader NOLOGIN;
CREATE ROLE evidence_clerk NOLOGIN;

CREATE SCHEMA legal;
CREATE SCHEMA billing;

CREATE TABLE legal.custodian (
    custodian_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    contact jsonb NOT NULL
);

CREATE SEQUENCE legal.case_number START 2026000;

CREATE TABLE legal.case_file (
    case_id bigint PRIMARY KEY DEFAULT nextval('legal.case_number'),
    custodian_id integer NOT NULL REFERENCES legal.custodian,
    title text NOT NULL,
    opened_on date NOT NULL,
    attributes jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE legal.evidence (
    evidence_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id bigint NOT NULL REFERENCES legal.case_file,
    received_at timestamptz NOT NULL,
    description text NOT NULL,
    sealed_document bytea NOT NULL,
    scan oid
);

CREATE TABLE legal.access_log (
    accessed_at timestamptz NOT NULL,
    evidence_id bigint NOT NULL,
    actor text NOT NULL,
    action text NOT NULL
) PARTITION BY RANGE (accessed_at);
CREATE TABLE legal.access_log_2026_h1 PARTITION OF legal.access_log
    FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE legal.access_log_2026_h2 PARTITION OF legal.access_log
    FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');

CREATE TABLE billing.invoice (
    invoice_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id bigint NOT NULL REFERENCES legal.case_file,
    amount_cents bigint NOT NULL CHECK (amount_cents >= 0),
    issued_on date NOT NULL
);

INSERT INTO legal.custodian (name, contact)
SELECT 'Office ' || n,
       jsonb_build_object('mail', 'office' || n || '@example.org', 'floor', n % 7, 'tags', jsonb_build_array('fr', n))
  FROM generate_series(1, 40) AS n;

INSERT INTO legal.case_file (custodian_id, title, opened_on, attributes)
SELECT 1 + n % 40, 'Case concerning contract ' || md5(n::text), date '2026-01-01' + n % 300,
       jsonb_build_object('priority', n % 3, 'court', 'TJ ' || n % 12)
  FROM generate_series(1, 2000) AS n;

-- Sealed documents do not compress: concatenated digests stand for encrypted files.
INSERT INTO legal.evidence (case_id, received_at, description, sealed_document)
SELECT 2026000 + n % 2000, timestamptz '2026-03-01 08:00+01' + n * interval '7 minutes',
       repeat('Statement of the witness, page ' || n || '. ', 12),
       (SELECT string_agg(sha512(convert_to(n || '/' || block, 'UTF8')), ''::bytea)
          FROM generate_series(1, 32) AS block)
  FROM generate_series(1, 8000) AS n;

UPDATE legal.evidence SET scan = lo_from_bytea(0, sealed_document) WHERE evidence_id % 400 = 0;

INSERT INTO legal.access_log
SELECT timestamptz '2026-01-02 09:00+01' + n * interval '5 minutes', 1 + n % 8000, 'clerk' || n % 9,
       (ARRAY['viewed', 'exported', 'sealed'])[1 + n % 3]
  FROM generate_series(1, 60000) AS n;

INSERT INTO billing.invoice (case_id, amount_cents, issued_on)
SELECT 2026000 + n % 2000, (n * 7919) % 500000, date '2026-02-01' + n % 250
  FROM generate_series(1, 5000) AS n;

CREATE INDEX evidence_by_case ON legal.evidence (case_id, received_at);
CREATE VIEW legal.open_case AS
    SELECT c.case_id, c.title, count(e.evidence_id) AS pieces
      FROM legal.case_file c LEFT JOIN legal.evidence e USING (case_id)
     GROUP BY c.case_id;

GRANT USAGE ON SCHEMA legal TO evidence_reader, evidence_clerk;
GRANT SELECT ON ALL TABLES IN SCHEMA legal TO evidence_reader;
GRANT SELECT, INSERT ON legal.evidence, legal.access_log TO evidence_clerk;
GRANT evidence_reader TO evidence_clerk;
