//! The address by which a caller reached this proxy, for links in answers. Pure.
//!
//! What it is told of proxies in front is believed: only the caller's own answer depends on it.

use http::{HeaderMap, Uri, header, uri::Authority};

/// `is_tls` says how the caller came in. Scheme and host without a slash at the end; empty where nothing is known, which makes links of paths alone.
pub(super) fn base(public: Option<&str>, headers: &HeaderMap, uri: &Uri, is_tls: bool) -> String {
    if let Some(public) = public {
        return public.trim_end_matches('/').to_owned();
    }
    let text = |name: &str| headers.get(name)?.to_str().ok();
    // The first is the one next to the caller.
    let first = |name: &str| {
        let value = text(name)?.split(',').next()?.trim();
        (!value.is_empty()).then(|| value.to_owned())
    };
    let forwarded = first("forwarded").unwrap_or_default();
    let of_forwarded = |wanted: &str| {
        forwarded.split(';').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case(wanted)
                .then(|| value.trim().trim_matches('"').to_owned())
        })
    };
    let host = first("x-forwarded-host")
        .or_else(|| of_forwarded("host"))
        .or_else(|| text(header::HOST.as_str()).map(str::to_owned))
        .or_else(|| uri.authority().map(ToString::to_string));
    let scheme = first("x-forwarded-proto")
        .or_else(|| of_forwarded("proto"))
        .map(|scheme| scheme.to_ascii_lowercase())
        .filter(|scheme| scheme == "http" || scheme == "https")
        .unwrap_or_else(|| if is_tls { "https" } else { "http" }.to_owned());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    match host.filter(|host| !host.as_str().contains('@')) {
        Some(host) => format!("{scheme}://{host}"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(public: Option<&str>, headers: &[(&'static str, &str)]) -> String {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        base(
            public,
            &headers.collect(),
            &Uri::from_static("/v1/images/generations"),
            false,
        )
    }

    #[test]
    fn links_lead_to_where_the_caller_came_in() {
        let host = ("host", "10.0.0.1:8000");
        assert_eq!(of(None, &[host]), "http://10.0.0.1:8000");
        let front = [
            host,
            ("x-forwarded-host", "pictures.example, inner"),
            ("x-forwarded-proto", "https,http"),
        ];
        assert_eq!(of(None, &front), "https://pictures.example");
        let standard = [
            host,
            (
                "forwarded",
                "for=1.2.3.4;proto=https;host=\"pictures.example\", for=x",
            ),
        ];
        assert_eq!(of(None, &standard), "https://pictures.example");
        assert_eq!(
            of(Some("https://mesh.example/draw/"), &front),
            "https://mesh.example/draw"
        );
        assert_eq!(of(None, &[]), "");
        let uri = Uri::from_static("http://two.example:1/v1/models");
        assert_eq!(base(None, &HeaderMap::new(), &uri, false), "http://two.example:1");
        assert_eq!(base(None, &HeaderMap::new(), &uri, true), "https://two.example:1");
    }

    #[test]
    fn a_host_that_is_none_makes_no_link() {
        for host in ["a b", "user@host", "x\"y", "a/b"] {
            assert_eq!(of(None, &[("host", host)]), "", "{host}");
        }
        let odd = [("host", "a"), ("x-forwarded-proto", "javascript")];
        assert_eq!(of(None, &odd), "http://a");
    }
}
