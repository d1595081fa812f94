-- Of a journal, or spool, on one node's disk alone: what was acknowledged there before this time (the database's clock,
-- ms) is applied. NULL: nobody writes it. docs/decisions/0012-nodes.md.
ALTER TABLE journals ADD COLUMN applied_ms INTEGER;
