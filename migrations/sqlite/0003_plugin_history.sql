-- When a version of a plugin last became the active one; NULL when it never did, or was rolled back. The latest but the
-- active one is what a rollback returns to.
ALTER TABLE oms_plugin_version ADD COLUMN activated_at INTEGER;
UPDATE oms_plugin_version SET activated_at = created_at WHERE active;
