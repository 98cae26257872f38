//! Configuration as declared data: every option says its type, unit, range, default, help, and whether it reloads.
//!
//! The form is oslo.config's INI, under Nova's own names wherever Nova has the option. Nothing here reads a file or the
//! environment: whoever starts a service hands in `(source, text)` pairs and gets a [`Config`] or *all* that is wrong, each
//! with file, line and name.
//!
//! * Later wins: files in the order given, then the environment (`NOVA_GROUP__OPTION`), then the command line
//!   (`group.option=value`).
//! * `$name`, `${name}`, `$group.name` and `${group.name}` stand for other options (the same group first, then `DEFAULT`);
//!   `$$` or `\$` is a dollar sign. `~/` at the start of a path is the home folder (the variable `HOME`).
//! * An option is declared once, as a typed handle, and read with it: `config.get(&HOST)` can't fail after loading.
//!
//! ```
//! use nova_core::options::{Config, Opt, OptionDecl, Registry, Source};
//!
//! const WORKERS: Opt<i64> = Opt::integer("brewery", "workers", 1, 64)
//!     .default("2")
//!     .unit("threads")
//!     .help("How many kettles are watched at once.");
//! const OPTIONS: &[OptionDecl] = &[WORKERS.decl()];
//!
//! let registry = Registry::new().with(OPTIONS);
//! let file = Source::File { path: "brewery.conf".into() };
//! let config = Config::load(&registry, [(file.clone(), "[brewery]\nworkers = 8\n")]).unwrap();
//! assert_eq!(config.get(&WORKERS), 8);
//!
//! let errors = Config::load(&registry, [(file, "[brewery]\n\nworker = 8\n")]).unwrap_err();
//! assert_eq!(
//!     errors[0].to_string(),
//!     "brewery.conf:3: brewery.worker: no such option; did you mean 'brewery.workers'?"
//! );
//! ```

pub mod common;
mod config;
mod decl;
mod error;
mod explain;
pub mod guests;
pub mod hosts;
pub mod ini;
mod registry;
mod reload;
mod source;
mod substitute;
#[cfg(test)]
mod tests;
mod value;

pub use config::{Config, Setting};
pub use decl::{Opt, OptionDecl, OptionKind, Reload};
pub use error::{ConfigError, Problem};
pub use explain::Explanation;
pub use registry::{Check, Registry};
pub use reload::{Change, ReloadReport};
pub use source::{Origin, Source};
pub use value::{Address, FromValue, Value};
