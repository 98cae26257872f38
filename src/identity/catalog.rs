//! The service catalog: which services this deployment serves, and where.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const INTERFACES: [&str; 3] = ["public", "internal", "admin"];

/// One service and the one address that all its interfaces have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogService {
    /// `compute`, `image`, …: what clients look for.
    pub service_type: String,
    /// Its name: `nova`, `glance`, ….
    pub name: String,
    /// The whole URL.
    pub url: String,
}

/// All services, in the order in which they were added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    public_url: String,
    region: String,
    services: Vec<CatalogService>,
}

impl Catalog {
    /// An empty catalog of region `RegionOne`. Services added by path hang below `public_url`.
    pub fn new(public_url: impl Into<String>) -> Self {
        let public_url = public_url.into().trim_end_matches('/').to_owned();
        Self { public_url, region: "RegionOne".to_owned(), services: Vec::new() }
    }

    /// Another region.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = region.into();
        self
    }

    /// Adds a service: `path` below the public URL, or a whole URL of a service elsewhere.
    #[must_use]
    pub fn service(mut self, service_type: &str, name: &str, path: &str) -> Self {
        let url = if path.contains("://") { path.to_owned() } else { format!("{}{path}", self.public_url) };
        self.services.push(CatalogService { service_type: service_type.to_owned(), name: name.to_owned(), url });
        self
    }

    /// Identity, compute, images and networks of this process, where their applications hang by default.
    pub fn of_this_process(public_url: impl Into<String>) -> Self {
        Self::new(public_url)
            .service("identity", "keystone", "/identity/v3")
            .service("compute", "nova", "/compute/v2.1")
            .service("image", "glance", "/image")
            .service("network", "neutron", "/network")
    }

    /// The services.
    pub fn services(&self) -> &[CatalogService] {
        &self.services
    }

    /// The name of the region.
    pub fn region_name(&self) -> &str {
        &self.region
    }

    /// As token bodies and `GET /v3/auth/catalog` show it.
    pub(super) fn body(&self) -> Value {
        self.services
            .iter()
            .map(|service| {
                let endpoints: Value =
                    INTERFACES.iter().map(|interface| self.brief_endpoint(service, interface)).collect();
                json!({
                    "id": self.service_id(service),
                    "type": service.service_type,
                    "name": service.name,
                    "endpoints": endpoints,
                })
            })
            .collect()
    }

    fn brief_endpoint(&self, service: &CatalogService, interface: &str) -> Value {
        json!({
            "id": self.endpoint_id(service, interface),
            "interface": interface,
            "region": self.region,
            "region_id": self.region,
            "url": service.url,
        })
    }

    /// As `GET /v3/services` shows them.
    pub(super) fn service_bodies(&self, base_url: &str) -> Vec<Value> {
        self.services
            .iter()
            .map(|service| {
                let id = self.service_id(service);
                json!({
                    "links": {"self": format!("{base_url}/services/{id}")},
                    "id": id,
                    "type": service.service_type,
                    "name": service.name,
                    "description": "",
                    "enabled": true,
                })
            })
            .collect()
    }

    /// As `GET /v3/endpoints` shows them.
    pub(super) fn endpoint_bodies(&self, base_url: &str) -> Vec<Value> {
        let mut bodies = Vec::new();
        for service in &self.services {
            for interface in INTERFACES {
                let mut body = self.brief_endpoint(service, interface);
                let id = self.endpoint_id(service, interface);
                body["service_id"] = json!(self.service_id(service));
                body["enabled"] = json!(true);
                body["links"] = json!({"self": format!("{base_url}/endpoints/{id}")});
                bodies.push(body);
            }
        }
        bodies
    }

    /// As `GET /v3/regions` shows them.
    pub(super) fn region_bodies(&self, base_url: &str) -> Vec<Value> {
        vec![json!({
            "id": self.region,
            "description": "",
            "parent_region_id": null,
            "links": {"self": format!("{base_url}/regions/{}", self.region)},
        })]
    }

    fn service_id(&self, service: &CatalogService) -> String {
        stable_id(&["service", &self.region, &service.service_type, &service.name])
    }

    fn endpoint_id(&self, service: &CatalogService, interface: &str) -> String {
        stable_id(&["endpoint", &self.region, &service.service_type, &service.name, interface])
    }
}

/// An id in Keystone's form that is the same in every process.
fn stable_id(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\0").as_bytes());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_three_interfaces_and_lasting_ids() {
        let catalog = Catalog::of_this_process("http://cloud:8774/");
        let body = catalog.body();
        assert_eq!(body, Catalog::of_this_process("http://cloud:8774").body());
        assert_eq!(body[1]["type"], "compute");
        assert_eq!(body[1]["endpoints"][0]["url"], "http://cloud:8774/compute/v2.1");
        assert_eq!(body[1]["endpoints"][0]["region_id"], "RegionOne");
        let mut ids: Vec<_> = catalog.endpoint_bodies("").iter().map(|endpoint| endpoint["id"].clone()).collect();
        ids.dedup();
        assert_eq!(ids.len(), 12);
    }

    #[test]
    fn a_service_may_be_elsewhere() {
        let catalog = Catalog::new("http://cloud").region("two").service("image", "glance", "https://images.example/");
        assert_eq!(catalog.services()[0].url, "https://images.example/");
        assert_eq!(catalog.body()[0]["endpoints"][2]["region"], "two");
    }
}
