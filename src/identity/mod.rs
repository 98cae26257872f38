//! The built-in identity: Keystone's v3 API over a store of domains, projects, users, roles and grants.
//!
//! Tokens are signed and carry their claims, so that checking one costs a signature and a look into memory
//! ([`IdentityManager`] implements [`IdentityService`](nova_core::contracts::IdentityService)). What it is not: groups, trusts,
//! federation, application credentials, and roles on domains or on the system.
//!
//! - [`IdentityManager`]: tokens, passwords, [bootstrap](IdentityManager::bootstrap); [`Catalog`]: which services there are.
//! - [`application`]: the HTTP side.

mod bootstrap;
mod catalog;
mod directory;
mod domains;
mod endpoints;
mod fields;
mod grants;
mod http;
mod login;
mod manager;
mod options;
mod password;
mod policy;
mod projects;
mod role_resource;
mod roles;
mod token;
mod tokens;
mod users;
mod versions;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use bootstrap::{Account, Bootstrap};
pub use catalog::{Catalog, CatalogService};
pub use http::KeystoneDialect;
pub use manager::{IdentityManager, ManagerError};
pub use options::{IDENTITY_OPTIONS, IdentityOptions, PasswordOptions};
pub use password::{Password, PasswordError};
pub use roles::BUILT_IN_ROLES;

use crate::api::{Application, Resource};

/// The identity API over this manager, mounted at `/identity`.
pub fn application(manager: Arc<IdentityManager>) -> Application {
    let mut application = Application::new("identity", "/identity", Arc::new(KeystoneDialect))
        .prefixes(&["/v3"])
        .root(Arc::new(versions::Versions));
    for resource in resources(manager) {
        application = application.resource(resource);
    }
    application
}

/// The resources of the identity API, for an application that is put together otherwise.
pub fn resources(manager: Arc<IdentityManager>) -> Vec<Arc<dyn Resource>> {
    vec![
        Arc::new(tokens::Tokens::new(Arc::clone(&manager))),
        Arc::new(domains::Domains::new(Arc::clone(&manager))),
        Arc::new(projects::Projects::new(Arc::clone(&manager))),
        Arc::new(users::Users::new(Arc::clone(&manager))),
        Arc::new(role_resource::Roles::new(Arc::clone(&manager))),
        Arc::new(grants::Grants::new(Arc::clone(&manager))),
        Arc::new(endpoints::Endpoints::new(manager)),
    ]
}
