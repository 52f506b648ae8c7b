//! Whom the host trusts on behalf of plugins: the public roots and those of the account.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// For connections that plugins ask for. The provider is named here, so that no program has to install one.
pub(super) fn client_config(extra_roots: Option<&str>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    for certificate in extra_certificates(extra_roots)? {
        roots
            .add(certificate)
            .map_err(|e| format!("extra_roots of the account: {e}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS: {e}"))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The account's own roots.
pub(super) fn extra_certificates(pem: Option<&str>) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem.unwrap_or_default().as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| format!("extra_roots of the account: {e}"))
}
