-- What plugins asked of gateways and what came back, without secrets and without what belongs to customers. Written only
-- where an account says so; kept for two weeks, to be run against another version of the plugin.
CREATE TABLE oms_plugin_call (
    id BLOB PRIMARY KEY,
    account TEXT NOT NULL,
    plugin_id TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    -- start, complete, capture, cancel, refund, sync, receive
    function TEXT NOT NULL,
    payment_id BLOB,
    -- JSON, each of a bounded size.
    asked TEXT NOT NULL,
    calls TEXT NOT NULL,
    outcome TEXT NOT NULL,
    made_at INTEGER NOT NULL
) STRICT;
CREATE INDEX oms_plugin_call_made_at ON oms_plugin_call (made_at);
CREATE INDEX oms_plugin_call_payment ON oms_plugin_call (payment_id);
-- A replay reads the inbox from a time on.
CREATE INDEX oms_webhook_inbox_received ON oms_webhook_inbox (received_at);
