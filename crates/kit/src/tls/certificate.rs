//! What a certificate says of itself: until when, and for whom. It checks nothing; rustls did.

use rustls::pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::{Decode as _, oid::db::rfc4519::CN},
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// When it ends, seconds since the Unix epoch.
pub(super) fn expires(certificate: &CertificateDer<'_>) -> Option<u64> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let end = certificate.tbs_certificate.validity.not_after;
    Some(end.to_unix_duration().as_secs())
}

/// Names of its owner: DNS names, URIs and addresses, or where there is none of them the common name.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let body = &certificate.tbs_certificate;
    let alternatives = body.get::<SubjectAltName>().ok().flatten();
    let alternatives = alternatives.map(|(_, names)| names.0).unwrap_or_default();
    let names: Vec<String> = alternatives.iter().filter_map(name).collect();
    if !names.is_empty() {
        return names;
    }
    let parts = body.subject.0.iter().flat_map(|part| part.0.iter());
    parts
        .filter(|part| part.oid == CN)
        .filter_map(|part| String::from_utf8(part.value.value().to_vec()).ok())
        .collect()
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::UniformResourceIdentifier(name) => Some(name.to_string()),
        GeneralName::IpAddress(octets) => {
            let bytes = octets.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from);
            v4.or_else(|_| v6()).ok().map(|address| address.to_string())
        }
        GeneralName::OtherName(_)
        | GeneralName::Rfc822Name(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::RegisteredId(_) => None,
    }
}
