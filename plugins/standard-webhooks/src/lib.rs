//! standard-webhooks
