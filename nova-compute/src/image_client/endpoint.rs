//! Where the image service is.

use std::net::IpAddr;

use http::Uri;
use nova_core::ids::ImageId;
use nova_core::options::{Config, Opt, common};

/// `glance.endpoint_override`
pub const GLANCE_ENDPOINT_OVERRIDE: Opt<Option<String>> = Opt::url("glance", "endpoint_override", &["http"])
    .roles(&["nova-compute"])
    .help(
        "Where hosts fetch images, e.g. http://controller:8774/image. Not set: api.public_url + /image, or http:// + \
         api.listen + /image.",
    )
    .optional();

/// A place that images cannot be fetched from.
#[derive(Debug, thiserror::Error)]
#[error("{option}: {problem}")]
pub struct EndpointError {
    option: String,
    problem: String,
}

/// An address, and the path in front of `/v2/images`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// A name or an address, IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// As it stands in URLs.
    pub(super) authority: String,
    path: String,
}

impl Endpoint {
    /// Understands a URL that comes from that option.
    pub(super) fn parse(option: String, url: &str) -> Result<Self, EndpointError> {
        let wrong = |problem: &str| EndpointError { option: option.clone(), problem: format!("'{url}' {problem}") };
        let uri: Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(wrong("is https, and hosts fetch images by http only: set glance.endpoint_override"));
            }
            _ => return Err(wrong("does not begin with http://")),
        }
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| wrong("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("has a user in it; hosts need none"));
        }
        if uri.query().is_some() {
            return Err(wrong("has a query"));
        }
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.to_string(),
            path: path.strip_suffix("/v2").unwrap_or(path).to_owned(),
        })
    }

    /// `glance.endpoint_override`; or where the catalog shows the image API: at an address of its own, at
    /// `api.public_url`, at `api.listen`.
    pub(super) fn from_config(config: &Config) -> Result<Self, EndpointError> {
        if let Some(url) = config.get(&GLANCE_ENDPOINT_OVERRIDE) {
            return Self::parse(GLANCE_ENDPOINT_OVERRIDE.decl().key(), &url);
        }
        let apart = config.get(&common::ENABLED_APIS);
        if let Some(address) = apart.iter().find_map(|api| api.trim().strip_prefix("image@")) {
            return Self::parse(common::ENABLED_APIS.decl().key(), &format!("http://{address}/image"))?.reachable();
        }
        if let Some(url) = config.get(&common::API_PUBLIC_URL) {
            let url = format!("{}/image", url.trim_end_matches('/'));
            return Self::parse(common::API_PUBLIC_URL.decl().key(), &url);
        }
        let url = format!("http://{}/image", config.get(&common::API_LISTEN));
        Self::parse(common::API_LISTEN.decl().key(), &url)?.reachable()
    }

    /// A service may listen on every address; a host has to know one.
    fn reachable(self) -> Result<Self, EndpointError> {
        if self.host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()) {
            let problem = format!("{} is every address, and a host needs one to fetch images from", self.authority);
            return Err(EndpointError { option: GLANCE_ENDPOINT_OVERRIDE.decl().key(), problem });
        }
        Ok(self)
    }

    /// What is asked for to get an image's data.
    pub(super) fn file(&self, id: ImageId) -> String {
        format!("{}/v2/images/{id}/file", self.path)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use nova_core::options::Source;

    use super::*;

    fn found(settings: &[&str]) -> Result<String, String> {
        let registry = common::registry().with(crate::COMPUTE_OPTIONS);
        let home = (Source::CommandLine, "DEFAULT.state_path=/srv/nova");
        let sources = settings.iter().map(|text| (Source::CommandLine, *text)).chain([home]);
        let config = Config::load(&registry, sources).map_err(|errors| format!("{errors:?}"))?;
        Endpoint::from_config(&config).map(|endpoint| endpoint.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn one_file_for_all_services_says_where_images_are() {
        let cases: [(&[&str], &str); 7] = [
            (&[], "http://127.0.0.1:8774/image"),
            (&["api.listen=[::1]:9000"], "http://[::1]:9000/image"),
            (&["api.public_url=http://cloud:8774/"], "http://cloud:8774/image"),
            (&["api.public_url=http://cloud/a"], "http://cloud/a/image"),
            (&["DEFAULT.enabled_apis=identity, image@10.0.0.1:9292"], "http://10.0.0.1:9292/image"),
            (&["glance.endpoint_override=http://g:9292/v2/", "api.public_url=https://cloud"], "http://g:9292"),
            (&["glance.endpoint_override=http://g/image"], "http://g/image"),
        ];
        for (settings, url) in cases {
            assert_eq!(found(settings).as_deref(), Ok(url), "{settings:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_option() {
        let cases: [(&[&str], &str, &str); 6] = [
            (&["api.public_url=https://cloud"], "api.public_url", "https"),
            (&["api.listen=0.0.0.0:8774"], "glance.endpoint_override", "every address"),
            (&["api.listen=[::]:8774"], "glance.endpoint_override", "every address"),
            (&["glance.endpoint_override=https://g"], "glance", "http"),
            (&["glance.endpoint_override=http://a:b@g/"], "glance.endpoint_override", "user"),
            (&["glance.endpoint_override=http://g/?x=1"], "glance.endpoint_override", "query"),
        ];
        for (settings, option, problem) in cases {
            let error = found(settings).unwrap_err();
            assert!(error.contains(option) && error.contains(problem), "{settings:?}: {error}");
        }
    }

    #[test]
    fn paths_are_put_together() {
        let endpoint = Endpoint::parse("x".into(), "http://[::1]/image").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("::1", 80));
        let id = "70a599e0-31e7-49b7-b260-868f441e862b".parse().unwrap();
        assert_eq!(endpoint.file(id), "/image/v2/images/70a599e0-31e7-49b7-b260-868f441e862b/file");
    }
}
