-- Whose file it is: other nodes have theirs. NULL: from before; there was one node then.
ALTER TABLE uploads ADD COLUMN journal bytea;
