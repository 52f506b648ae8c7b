-- What plugins asked of gateways and what came back, without secrets and without what belongs to customers. Written only
-- where an account says so; kept for two weeks, to be run against another version of the plugin.
CREATE TABLE oms_plugin_call (
    id uuid PRIMARY KEY,
    account text NOT NULL,
    plugin_id text NOT NULL,
    version text NOT NULL,
    digest text NOT NULL,
    -- start, complete, capture, cancel, refund, sync, receive
    function text NOT NULL,
    payment_id uuid,
    -- JSON, each of a bounded size.
    asked text NOT NULL,
    calls text NOT NULL,
    outcome text NOT NULL,
    made_at timestamptz NOT NULL
);
CREATE INDEX oms_plugin_call_made_at ON oms_plugin_call (made_at);
CREATE INDEX oms_plugin_call_payment ON oms_plugin_call (payment_id);
-- A replay reads the inbox from a time on.
CREATE INDEX oms_webhook_inbox_received ON oms_webhook_inbox (received_at);
