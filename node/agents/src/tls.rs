//! TLS sessions: with the system's roots, or with whatever certificate the server has.
//!
//! None is resumed: each check is to see the whole handshake, and servers of one name are not one server.

use std::sync::{Arc, OnceLock};

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::agent::Target;
use crate::connection::Stream;
use crate::failure::Seen;
use crate::options::{BadOption, Options};
use crate::text::plain;

/// The name in the form that TLS takes.
pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>, BadOption> {
    ServerName::try_from(name.to_owned()).map_err(|_| BadOption::ServerName(name.to_owned()))
}

/// Shakes hands as a client.
pub(crate) async fn client(
    stream: Box<dyn Stream>,
    target: &Target,
    options: &Options,
) -> Result<Box<dyn Stream>, Seen> {
    let unable = |error: &dyn ToString| Seen::Unable(error.to_string());
    let name = match &options.server_name {
        Some(name) => server_name(name).map_err(|error| unable(&error))?,
        None => ServerName::from(target.address),
    };
    let config = if options.verify {
        verifying().map_err(Seen::Unable)?
    } else {
        trusting().map_err(|error| unable(&error))?
    };
    let shaken = TlsConnector::from(config).connect(name, stream).await;
    match shaken {
        Ok(session) => Ok(Box::new(session)),
        // What rustls has to say comes inside of an error of the system; the others are the connection's.
        Err(error) if error.get_ref().is_some() => Err(Seen::Tls(plain(&error.to_string()))),
        Err(error) => Err(Seen::Io(error)),
    }
}

/// Made once: reading the system's roots takes milliseconds, and checks come by the hundred a second.
fn verifying() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            let mut roots = RootCertStore::empty();
            // One damaged root among the system's is none of ours; what it signed will not verify.
            let (usable, _damaged) = roots.add_parsable_certificates(found.certs);
            if usable == 0 {
                let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
                return Err(format!(
                    "this host has no roots to check certificates against{why}: install ca-certificates, or leave --verify out"
                ));
            }
            let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.resumption = Resumption::disabled();
            Ok(Arc::new(config))
        })
        .clone()
}

fn trusting() -> Result<Arc<ClientConfig>, Error> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, Error>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let provider = Arc::new(ring::default_provider());
            let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
                .with_no_client_auth();
            config.resumption = Resumption::disabled();
            Ok(Arc::new(config))
        })
        .clone()
}

/// Takes every certificate and does not even look at its signature: a check of the service must not depend on how old, how
/// oddly encoded or whose it is.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
