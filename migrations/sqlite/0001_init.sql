-- Every name begins with oms_, so that a host program's own tables do not collide.

CREATE TABLE oms_user (
    id BLOB PRIMARY KEY,
    username TEXT NOT NULL,
    -- Keys are folded in the program (NFKC, lower case), since the two databases fold differently.
    username_key TEXT NOT NULL CONSTRAINT oms_user_username_key UNIQUE,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL CONSTRAINT oms_user_email_key UNIQUE,
    password_hash TEXT NOT NULL,
    operator INTEGER NOT NULL DEFAULT 0,
    admin INTEGER NOT NULL DEFAULT 0,
    email_verified_at INTEGER,
    disabled_at INTEGER,
    version INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- Tokens that mails carry: only their hashes are kept.
CREATE TABLE oms_user_token (
    id BLOB PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES oms_user,
    purpose TEXT NOT NULL,
    token_hash BLOB NOT NULL CONSTRAINT oms_user_token_hash UNIQUE,
    -- The address the token proves: a changed address makes it worthless.
    email_key TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX oms_user_token_user ON oms_user_token (user_id);

CREATE TABLE oms_session (
    id BLOB PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES oms_user,
    refresh_hash BLOB NOT NULL CONSTRAINT oms_session_refresh UNIQUE,
    -- The hash before the last rotation: seen again, the token was stolen or its answer lost.
    previous_hash BLOB,
    rotated_at INTEGER,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX oms_session_user ON oms_session (user_id);

CREATE TABLE oms_business (
    id BLOB PRIMARY KEY,
    owner_id BLOB NOT NULL REFERENCES oms_user,
    name TEXT NOT NULL,
    city TEXT,
    country TEXT,
    description TEXT,
    phone TEXT,
    version INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
CREATE INDEX oms_business_owner ON oms_business (owner_id, id);

CREATE TABLE oms_media (
    name TEXT PRIMARY KEY,
    owner_id BLOB NOT NULL REFERENCES oms_user,
    content_type TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE oms_product (
    id BLOB PRIMARY KEY,
    business_id BLOB NOT NULL REFERENCES oms_business,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    category TEXT,
    category_key TEXT,
    description TEXT,
    search_text TEXT NOT NULL,
    images TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
CREATE INDEX oms_product_business ON oms_product (business_id, id) WHERE deleted_at IS NULL;
CREATE INDEX oms_product_category ON oms_product (category_key, id) WHERE deleted_at IS NULL;

CREATE TABLE oms_variant (
    id BLOB PRIMARY KEY,
    product_id BLOB NOT NULL REFERENCES oms_product,
    business_id BLOB NOT NULL REFERENCES oms_business,
    sku TEXT NOT NULL,
    name TEXT,
    price INTEGER NOT NULL CHECK (price >= 0 AND price < 9007199254740992),
    currency TEXT NOT NULL,
    position INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
CREATE UNIQUE INDEX oms_variant_sku ON oms_variant (sku) WHERE deleted_at IS NULL;
CREATE INDEX oms_variant_product ON oms_variant (product_id);

CREATE TABLE oms_stock (
    variant_id BLOB PRIMARY KEY REFERENCES oms_variant,
    on_hand INTEGER NOT NULL DEFAULT 0,
    allocated INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1,
    CONSTRAINT oms_stock_never_oversold CHECK (allocated >= 0 AND on_hand >= allocated)
) STRICT;

-- Append-only: `oms-server verify` recomputes both numbers of oms_stock from it.
CREATE TABLE oms_stock_movement (
    variant_id BLOB NOT NULL REFERENCES oms_variant,
    id BLOB NOT NULL,
    delta_on_hand INTEGER NOT NULL,
    delta_allocated INTEGER NOT NULL,
    cause TEXT NOT NULL,
    order_id BLOB,
    actor TEXT NOT NULL,
    reason TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (variant_id, id)
) STRICT, WITHOUT ROWID;

-- One update for each batch of orders; there is one writer anyway.
CREATE TABLE oms_counter (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
INSERT INTO oms_counter (name, value) VALUES ('order_number', 1000);

CREATE TABLE oms_order (
    id BLOB PRIMARY KEY,
    number INTEGER NOT NULL CONSTRAINT oms_order_number_key UNIQUE,
    user_id BLOB REFERENCES oms_user,
    email TEXT NOT NULL,
    shipping_address TEXT,
    billing_address TEXT,
    note TEXT,
    currency TEXT NOT NULL,
    subtotal INTEGER NOT NULL,
    discount INTEGER NOT NULL DEFAULT 0,
    shipping INTEGER NOT NULL DEFAULT 0,
    tax INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL,
    state TEXT NOT NULL,
    payment_state TEXT NOT NULL,
    expires_at INTEGER,
    metadata TEXT NOT NULL DEFAULT '{}',
    external_ref TEXT,
    version INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CONSTRAINT oms_order_total CHECK (
        subtotal >= 0 AND discount >= 0 AND shipping >= 0 AND tax >= 0 AND total < 9007199254740992
        AND total = subtotal - discount + shipping + tax)
) STRICT;
CREATE INDEX oms_order_user ON oms_order (user_id, id);
CREATE INDEX oms_order_expires ON oms_order (expires_at) WHERE state = 'awaiting_payment' AND expires_at IS NOT NULL;

CREATE TABLE oms_order_line (
    order_id BLOB NOT NULL REFERENCES oms_order,
    line INTEGER NOT NULL,
    -- To the variant, never to its stock: a key-share lock on the hot row would cost a multixact.
    variant_id BLOB NOT NULL REFERENCES oms_variant,
    business_id BLOB NOT NULL,
    sku TEXT NOT NULL,
    name TEXT NOT NULL,
    unit_price INTEGER NOT NULL,
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    fulfilled INTEGER NOT NULL DEFAULT 0,
    canceled INTEGER NOT NULL DEFAULT 0,
    returned INTEGER NOT NULL DEFAULT 0,
    discount INTEGER NOT NULL DEFAULT 0,
    tax INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL,
    PRIMARY KEY (order_id, line),
    CONSTRAINT oms_order_line_quantities CHECK (
        fulfilled >= 0 AND canceled >= 0 AND returned >= 0
        AND fulfilled + canceled <= quantity AND returned <= fulfilled),
    CONSTRAINT oms_order_line_total CHECK (total = unit_price * quantity - discount + tax)
) STRICT, WITHOUT ROWID;
CREATE INDEX oms_order_line_business ON oms_order_line (business_id, order_id);

-- The timeline: one entry for each version of the order.
CREATE TABLE oms_order_event (
    order_id BLOB NOT NULL REFERENCES oms_order,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    data TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (order_id, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE oms_fulfillment (
    id BLOB PRIMARY KEY,
    order_id BLOB NOT NULL REFERENCES oms_order,
    tracking TEXT,
    lines TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX oms_fulfillment_order ON oms_fulfillment (order_id, id);

-- `id` is taken from the SHA-256 of (actor, operation, target, key): one short index for every scope.
CREATE TABLE oms_idempotency (
    id BLOB PRIMARY KEY,
    operation TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    result_id BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE oms_payment (
    id BLOB PRIMARY KEY,
    order_id BLOB NOT NULL REFERENCES oms_order,
    account TEXT NOT NULL,
    plugin_id TEXT NOT NULL,
    plugin_version TEXT NOT NULL,
    -- NULL for a native gateway.
    plugin_digest TEXT,
    test_mode INTEGER NOT NULL,
    currency TEXT NOT NULL,
    amount INTEGER NOT NULL,
    capture_mode TEXT NOT NULL,
    status TEXT NOT NULL,
    attention TEXT,
    attention_reason TEXT,
    -- Whether money may still come of it; at most one such payment an order.
    open INTEGER NOT NULL,
    reference TEXT,
    authorized INTEGER NOT NULL DEFAULT 0,
    captured INTEGER NOT NULL DEFAULT 0,
    refunded INTEGER NOT NULL DEFAULT 0,
    canceled INTEGER NOT NULL DEFAULT 0,
    decline_code TEXT,
    decline_message TEXT,
    next_action TEXT,
    state TEXT,
    method TEXT NOT NULL DEFAULT '[]',
    return_url TEXT,
    expires_at INTEGER,
    -- When the reconcile job looks next, and how often it has.
    sync_tries INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CONSTRAINT oms_payment_totals CHECK (
        amount > 0 AND authorized >= 0 AND captured >= 0 AND refunded >= 0 AND canceled >= 0
        AND captured <= authorized AND refunded <= captured)
) STRICT;
CREATE INDEX oms_payment_order ON oms_payment (order_id, id);
CREATE UNIQUE INDEX oms_payment_open ON oms_payment (order_id) WHERE open;
CREATE UNIQUE INDEX oms_payment_reference ON oms_payment (account, reference) WHERE reference IS NOT NULL;
CREATE INDEX oms_payment_attention ON oms_payment (attention, id) WHERE attention IS NOT NULL;

-- One row for each operation at a gateway, with all its tries under one idempotency key.
CREATE TABLE oms_payment_attempt (
    id BLOB PRIMARY KEY,
    payment_id BLOB NOT NULL REFERENCES oms_payment,
    operation TEXT NOT NULL,
    gateway_key TEXT NOT NULL,
    -- in_flight, succeeded, declined, failed, unknown
    status TEXT NOT NULL,
    amount INTEGER,
    reference TEXT,
    refund_id BLOB,
    capture_id BLOB,
    tries INTEGER NOT NULL DEFAULT 1,
    error TEXT,
    request TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX oms_payment_attempt_payment ON oms_payment_attempt (payment_id, id);
CREATE INDEX oms_payment_attempt_in_flight ON oms_payment_attempt (updated_at) WHERE status = 'in_flight';

CREATE TABLE oms_capture (
    id BLOB PRIMARY KEY,
    payment_id BLOB NOT NULL REFERENCES oms_payment,
    amount INTEGER NOT NULL CHECK (amount > 0),
    final INTEGER NOT NULL,
    status TEXT NOT NULL,
    reference TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX oms_capture_payment ON oms_capture (payment_id, id);

CREATE TABLE oms_refund (
    id BLOB PRIMARY KEY,
    payment_id BLOB NOT NULL REFERENCES oms_payment,
    amount INTEGER NOT NULL CHECK (amount > 0),
    reason TEXT,
    status TEXT NOT NULL,
    reference TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX oms_refund_payment ON oms_refund (payment_id, id);

CREATE TABLE oms_webhook_inbox (
    id BLOB PRIMARY KEY,
    account TEXT NOT NULL,
    event_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    payment_id BLOB,
    reference TEXT,
    -- What the gateway's adapter read of it after it had verified it.
    event TEXT NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL,
    -- applied, irrelevant, unmatched, failed
    status TEXT NOT NULL,
    detail TEXT,
    tries INTEGER NOT NULL DEFAULT 1,
    received_at INTEGER NOT NULL,
    applied_at INTEGER,
    -- The real replay protection: half of the schemes sign no time.
    CONSTRAINT oms_webhook_inbox_event UNIQUE (account, event_id)
) STRICT;
CREATE INDEX oms_webhook_inbox_payment ON oms_webhook_inbox (payment_id);

CREATE TABLE oms_plugin_version (
    digest TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    version TEXT NOT NULL,
    wasm BLOB NOT NULL,
    manifest TEXT NOT NULL,
    active INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX oms_plugin_version_active ON oms_plugin_version (id) WHERE active;

-- Holds live jobs only, so that it stays small: done ones are deleted, dead ones move to oms_job_dead.
CREATE TABLE oms_job (
    id BLOB PRIMARY KEY,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    unique_key TEXT,
    run_at INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    -- Rises at each claim and guards completion: a worker that was asleep cannot finish another's run.
    lease INTEGER NOT NULL DEFAULT 0,
    leased_until INTEGER,
    worker TEXT,
    last_error TEXT,
    created_at INTEGER NOT NULL
) STRICT;
-- By kind first: a claim looks at the oldest jobs of each kind that it has a slot for, and never at the others.
CREATE INDEX oms_job_ready ON oms_job (kind, run_at, id) WHERE leased_until IS NULL;
CREATE INDEX oms_job_leased ON oms_job (leased_until) WHERE leased_until IS NOT NULL;
CREATE UNIQUE INDEX oms_job_unique ON oms_job (kind, unique_key) WHERE unique_key IS NOT NULL;

CREATE TABLE oms_job_dead (
    id BLOB PRIMARY KEY,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    unique_key TEXT,
    attempt INTEGER NOT NULL,
    last_error TEXT,
    created_at INTEGER NOT NULL,
    died_at INTEGER NOT NULL
) STRICT;

CREATE TABLE oms_schedule (
    name TEXT PRIMARY KEY,
    next_run INTEGER NOT NULL
) STRICT;
