-- Every name begins with oms_, so that a host program's own tables do not collide.

CREATE TABLE oms_user (
    id uuid PRIMARY KEY,
    username text NOT NULL,
    -- Keys are folded in the program (NFKC, lower case), since the two databases fold differently.
    username_key text COLLATE "C" NOT NULL CONSTRAINT oms_user_username_key UNIQUE,
    email text NOT NULL,
    email_key text COLLATE "C" NOT NULL CONSTRAINT oms_user_email_key UNIQUE,
    password_hash text NOT NULL,
    operator boolean NOT NULL DEFAULT false,
    admin boolean NOT NULL DEFAULT false,
    email_verified_at timestamptz,
    disabled_at timestamptz,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- Tokens that mails carry: only their hashes are kept.
CREATE TABLE oms_user_token (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES oms_user,
    purpose text NOT NULL,
    token_hash bytea NOT NULL CONSTRAINT oms_user_token_hash UNIQUE,
    -- The address the token proves: a changed address makes it worthless.
    email_key text COLLATE "C" NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    created_at timestamptz NOT NULL
);
CREATE INDEX oms_user_token_user ON oms_user_token (user_id);

CREATE TABLE oms_session (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES oms_user,
    refresh_hash bytea NOT NULL CONSTRAINT oms_session_refresh UNIQUE,
    -- The hash before the last rotation: seen again, the token was stolen or its answer lost.
    previous_hash bytea,
    rotated_at timestamptz,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL
);
CREATE INDEX oms_session_user ON oms_session (user_id);

CREATE TABLE oms_business (
    id uuid PRIMARY KEY,
    owner_id uuid NOT NULL REFERENCES oms_user,
    name text NOT NULL,
    city text,
    country text,
    description text,
    phone text,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz
);
CREATE INDEX oms_business_owner ON oms_business (owner_id, id);

CREATE TABLE oms_media (
    name text COLLATE "C" PRIMARY KEY,
    owner_id uuid NOT NULL REFERENCES oms_user,
    content_type text NOT NULL,
    bytes bigint NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE oms_product (
    id uuid PRIMARY KEY,
    business_id uuid NOT NULL REFERENCES oms_business,
    name text NOT NULL,
    name_key text COLLATE "C" NOT NULL,
    category text,
    category_key text COLLATE "C",
    description text,
    search_text text COLLATE "C" NOT NULL,
    images jsonb NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz
);
CREATE INDEX oms_product_business ON oms_product (business_id, id) WHERE deleted_at IS NULL;
CREATE INDEX oms_product_category ON oms_product (category_key, id) WHERE deleted_at IS NULL;

CREATE TABLE oms_variant (
    id uuid PRIMARY KEY,
    product_id uuid NOT NULL REFERENCES oms_product,
    business_id uuid NOT NULL REFERENCES oms_business,
    sku text COLLATE "C" NOT NULL,
    name text,
    price bigint NOT NULL CHECK (price >= 0 AND price < 9007199254740992),
    currency text NOT NULL,
    position bigint NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz
);
CREATE UNIQUE INDEX oms_variant_sku ON oms_variant (sku) WHERE deleted_at IS NULL;
CREATE INDEX oms_variant_product ON oms_variant (product_id);

-- The hot table: no index on what changes and room in each page, so that updates stay on it (HOT).
CREATE TABLE oms_stock (
    variant_id uuid PRIMARY KEY REFERENCES oms_variant,
    on_hand bigint NOT NULL DEFAULT 0,
    allocated bigint NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 1,
    CONSTRAINT oms_stock_never_oversold CHECK (allocated >= 0 AND on_hand >= allocated)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Append-only: `oms-server verify` recomputes both numbers of oms_stock from it.
CREATE TABLE oms_stock_movement (
    variant_id uuid NOT NULL REFERENCES oms_variant,
    id uuid NOT NULL,
    delta_on_hand bigint NOT NULL,
    delta_allocated bigint NOT NULL,
    cause text NOT NULL,
    order_id uuid,
    actor text NOT NULL,
    reason text,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (variant_id, id)
);

-- A counter row would serialise all batches; a sequence has gaps, which is fine.
CREATE SEQUENCE oms_order_number START 1001 CACHE 1;

CREATE TABLE oms_order (
    id uuid PRIMARY KEY,
    number bigint NOT NULL CONSTRAINT oms_order_number_key UNIQUE,
    user_id uuid REFERENCES oms_user,
    email text NOT NULL,
    shipping_address jsonb,
    billing_address jsonb,
    note text,
    currency text NOT NULL,
    subtotal bigint NOT NULL,
    discount bigint NOT NULL DEFAULT 0,
    shipping bigint NOT NULL DEFAULT 0,
    tax bigint NOT NULL DEFAULT 0,
    total bigint NOT NULL,
    state text NOT NULL,
    payment_state text NOT NULL,
    expires_at timestamptz,
    metadata jsonb NOT NULL DEFAULT '{}',
    external_ref text,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT oms_order_total CHECK (
        subtotal >= 0 AND discount >= 0 AND shipping >= 0 AND tax >= 0 AND total < 9007199254740992
        AND total = subtotal - discount + shipping + tax)
) WITH (fillfactor = 80);
CREATE INDEX oms_order_user ON oms_order (user_id, id);
CREATE INDEX oms_order_expires ON oms_order (expires_at) WHERE state = 'awaiting_payment' AND expires_at IS NOT NULL;

CREATE TABLE oms_order_line (
    order_id uuid NOT NULL REFERENCES oms_order,
    line bigint NOT NULL,
    -- To the variant, never to its stock: a key-share lock on the hot row would cost a multixact.
    variant_id uuid NOT NULL REFERENCES oms_variant,
    business_id uuid NOT NULL,
    sku text COLLATE "C" NOT NULL,
    name text NOT NULL,
    unit_price bigint NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    fulfilled bigint NOT NULL DEFAULT 0,
    canceled bigint NOT NULL DEFAULT 0,
    returned bigint NOT NULL DEFAULT 0,
    discount bigint NOT NULL DEFAULT 0,
    tax bigint NOT NULL DEFAULT 0,
    total bigint NOT NULL,
    PRIMARY KEY (order_id, line),
    CONSTRAINT oms_order_line_quantities CHECK (
        fulfilled >= 0 AND canceled >= 0 AND returned >= 0
        AND fulfilled + canceled <= quantity AND returned <= fulfilled),
    CONSTRAINT oms_order_line_total CHECK (total = unit_price * quantity - discount + tax)
);
CREATE INDEX oms_order_line_business ON oms_order_line (business_id, order_id);

-- The timeline: one entry for each version of the order.
CREATE TABLE oms_order_event (
    order_id uuid NOT NULL REFERENCES oms_order,
    version bigint NOT NULL,
    kind text NOT NULL,
    actor text NOT NULL,
    data jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (order_id, version)
);

CREATE TABLE oms_fulfillment (
    id uuid PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES oms_order,
    tracking text,
    lines jsonb NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX oms_fulfillment_order ON oms_fulfillment (order_id, id);

-- `id` is taken from the SHA-256 of (actor, operation, target, key): one short index for every scope.
CREATE TABLE oms_idempotency (
    id uuid PRIMARY KEY,
    operation text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    result_id uuid NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE oms_payment (
    id uuid PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES oms_order,
    account text NOT NULL,
    plugin_id text NOT NULL,
    plugin_version text NOT NULL,
    -- NULL for a native gateway.
    plugin_digest text,
    test_mode boolean NOT NULL,
    currency text NOT NULL,
    amount bigint NOT NULL,
    capture_mode text NOT NULL,
    status text NOT NULL,
    attention text,
    attention_reason text,
    -- Whether money may still come of it; at most one such payment an order.
    open boolean NOT NULL,
    reference text,
    authorized bigint NOT NULL DEFAULT 0,
    captured bigint NOT NULL DEFAULT 0,
    refunded bigint NOT NULL DEFAULT 0,
    canceled bigint NOT NULL DEFAULT 0,
    decline_code text,
    decline_message text,
    next_action jsonb,
    state text,
    method jsonb NOT NULL DEFAULT '[]',
    return_url text,
    expires_at timestamptz,
    -- When the reconcile job looks next, and how often it has.
    sync_tries bigint NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT oms_payment_totals CHECK (
        amount > 0 AND authorized >= 0 AND captured >= 0 AND refunded >= 0 AND canceled >= 0
        AND captured <= authorized AND refunded <= captured)
);
CREATE INDEX oms_payment_order ON oms_payment (order_id, id);
CREATE UNIQUE INDEX oms_payment_open ON oms_payment (order_id) WHERE open;
CREATE UNIQUE INDEX oms_payment_reference ON oms_payment (account, reference) WHERE reference IS NOT NULL;
CREATE INDEX oms_payment_attention ON oms_payment (attention, id) WHERE attention IS NOT NULL;

-- One row for each operation at a gateway, with all its tries under one idempotency key.
CREATE TABLE oms_payment_attempt (
    id uuid PRIMARY KEY,
    payment_id uuid NOT NULL REFERENCES oms_payment,
    operation text NOT NULL,
    gateway_key text NOT NULL,
    -- in_flight, succeeded, declined, failed, unknown
    status text NOT NULL,
    amount bigint,
    reference text,
    refund_id uuid,
    capture_id uuid,
    tries bigint NOT NULL DEFAULT 1,
    error jsonb,
    request jsonb,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX oms_payment_attempt_payment ON oms_payment_attempt (payment_id, id);
CREATE INDEX oms_payment_attempt_in_flight ON oms_payment_attempt (updated_at) WHERE status = 'in_flight';

CREATE TABLE oms_capture (
    id uuid PRIMARY KEY,
    payment_id uuid NOT NULL REFERENCES oms_payment,
    amount bigint NOT NULL CHECK (amount > 0),
    final boolean NOT NULL,
    status text NOT NULL,
    reference text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX oms_capture_payment ON oms_capture (payment_id, id);

CREATE TABLE oms_refund (
    id uuid PRIMARY KEY,
    payment_id uuid NOT NULL REFERENCES oms_payment,
    amount bigint NOT NULL CHECK (amount > 0),
    reason text,
    status text NOT NULL,
    reference text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX oms_refund_payment ON oms_refund (payment_id, id);

CREATE TABLE oms_webhook_inbox (
    id uuid PRIMARY KEY,
    account text NOT NULL,
    event_id text NOT NULL,
    kind text NOT NULL,
    payment_id uuid,
    reference text,
    -- What the gateway's adapter read of it after it had verified it.
    event jsonb NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    -- applied, irrelevant, unmatched, failed
    status text NOT NULL,
    detail text,
    tries bigint NOT NULL DEFAULT 1,
    received_at timestamptz NOT NULL,
    applied_at timestamptz,
    -- The real replay protection: half of the schemes sign no time.
    CONSTRAINT oms_webhook_inbox_event UNIQUE (account, event_id)
);
CREATE INDEX oms_webhook_inbox_payment ON oms_webhook_inbox (payment_id);

CREATE TABLE oms_plugin_version (
    digest text PRIMARY KEY,
    id text NOT NULL,
    version text NOT NULL,
    wasm bytea NOT NULL,
    manifest text NOT NULL,
    active boolean NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX oms_plugin_version_active ON oms_plugin_version (id) WHERE active;

-- Holds live jobs only, so that it stays small: done ones are deleted, dead ones move to oms_job_dead.
CREATE TABLE oms_job (
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    payload jsonb NOT NULL,
    unique_key text,
    run_at timestamptz NOT NULL,
    attempt bigint NOT NULL DEFAULT 0,
    -- Rises at each claim and guards completion: a worker that was asleep cannot finish another's run.
    lease bigint NOT NULL DEFAULT 0,
    leased_until timestamptz,
    worker text,
    last_error text,
    created_at timestamptz NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
-- By kind first: a claim looks at the oldest jobs of each kind that it has a slot for, and never at the others.
CREATE INDEX oms_job_ready ON oms_job (kind, run_at, id) WHERE leased_until IS NULL;
CREATE INDEX oms_job_leased ON oms_job (leased_until) WHERE leased_until IS NOT NULL;
CREATE UNIQUE INDEX oms_job_unique ON oms_job (kind, unique_key) WHERE unique_key IS NOT NULL;

CREATE TABLE oms_job_dead (
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    payload jsonb NOT NULL,
    unique_key text,
    attempt bigint NOT NULL,
    last_error text,
    created_at timestamptz NOT NULL,
    died_at timestamptz NOT NULL
);

CREATE TABLE oms_schedule (
    name text PRIMARY KEY,
    next_run timestamptz NOT NULL
);
