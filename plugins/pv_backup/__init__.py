"""PV backup: encrypted, verified, provably restorable backups of PostgreSQL 15."""
