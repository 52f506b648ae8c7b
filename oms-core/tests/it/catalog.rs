//! Businesses, products, variants and media.
