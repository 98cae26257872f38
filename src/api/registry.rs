//! Filters and applications by name, and the building of what the configuration asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use nova_core::clock::Clock;
use nova_core::contracts::IdentityService;
use nova_core::entropy::Entropy;

use super::pipeline::Served;
use super::{Api, ApiOptions, Application, Filter, filters, health};

/// What filters are made from.
#[derive(Clone)]
pub struct FilterDeps {
    /// Who checks tokens.
    pub identity: Arc<dyn IdentityService>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness: request ids.
    pub entropy: Arc<dyn Entropy>,
    /// The configuration.
    pub options: Arc<ApiOptions>,
}

/// Why the configured pipelines cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// One application cannot be served twice.
    #[error("DEFAULT.enabled_apis names '{name}' more than once")]
    Twice {
        /// The entry.
        name: String,
    },
    /// `enabled_apis` names a pipeline that is not there.
    #[error("DEFAULT.enabled_apis: there is no [pipeline:{name}]; there are {known}")]
    UnknownPipeline {
        /// The name.
        name: String,
        /// Those that are there.
        known: String,
    },
    /// A pipeline names a filter that nobody registered.
    #[error("[pipeline:{pipeline}] filters: there is no filter '{name}'; there are {known}")]
    UnknownFilter {
        /// The pipeline.
        pipeline: String,
        /// The filter.
        name: String,
        /// Those that are there.
        known: String,
    },
    /// A pipeline names an application that nobody registered.
    #[error("[pipeline:{pipeline}] app: there is no application '{name}'; there are {known}")]
    UnknownApplication {
        /// The pipeline.
        pipeline: String,
        /// The application.
        name: String,
        /// Those that are there.
        known: String,
    },
    /// A filter cannot be made from this configuration.
    #[error("filter '{name}': {problem}")]
    Filter {
        /// The filter.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// Makes a filter from what it needs.
pub type FilterFactory = Box<dyn Fn(&FilterDeps) -> Result<Arc<dyn Filter>, PipelineError> + Send + Sync>;

/// Filters and applications by name.
pub struct Registry {
    filters: BTreeMap<String, FilterFactory>,
    applications: BTreeMap<String, Application>,
    deps: FilterDeps,
}

impl Registry {
    /// A registry with our filters and no application.
    pub fn new(deps: FilterDeps) -> Self {
        let mut registry = Self { filters: BTreeMap::new(), applications: BTreeMap::new(), deps };
        filters::register(&mut registry);
        registry
    }

    /// Adds a filter, or takes the place of one of that name.
    pub fn filter<F>(&mut self, name: &str, factory: F) -> &mut Self
    where
        F: Fn(&FilterDeps) -> Result<Arc<dyn Filter>, PipelineError> + Send + Sync + 'static,
    {
        self.filters.insert(name.to_owned(), Box::new(factory));
        self
    }

    /// Adds an application under its name, or takes the place of one of that name.
    pub fn application(&mut self, application: Application) -> &mut Self {
        self.applications.insert(application.name.clone(), application);
        self
    }

    /// Builds what `enabled_apis` and the pipelines ask for: one [`Api`] per address, that of `api.listen` first, even if
    /// nothing is served there. An application of the name `health` is served there in any case.
    ///
    /// # Errors
    /// [`PipelineError`] for every name that leads nowhere.
    pub fn build(mut self) -> Result<Vec<(String, Api)>, PipelineError> {
        let options = Arc::clone(&self.deps.options);
        let mut addresses: Vec<(String, Vec<Served>)> = vec![(options.listen.clone(), Vec::new())];
        for (place, enabled) in options.enabled_apis.iter().enumerate() {
            if options.enabled_apis.iter().take(place).any(|before| before.name == enabled.name) {
                return Err(PipelineError::Twice { name: enabled.name.clone() });
            }
            let served = self.served(&enabled.name)?;
            let address = enabled.address.as_ref().unwrap_or(&options.listen);
            match addresses.iter_mut().find(|(known, _)| known == address) {
                Some((_, list)) => list.push(served),
                None => addresses.push((address.clone(), vec![served])),
            }
        }
        // Health is for machines, not for users: it is served whatever users are served.
        if self.applications.contains_key(health::APPLICATION) {
            let served = self.served(health::APPLICATION)?;
            addresses[0].1.push(served);
        }
        Ok(addresses.into_iter().map(|(address, served)| (address, self.api(served))).collect())
    }

    fn served(&mut self, name: &str) -> Result<Served, PipelineError> {
        let pipelines = &self.deps.options.pipelines;
        let pipeline = pipelines
            .get(name)
            .ok_or_else(|| PipelineError::UnknownPipeline { name: name.to_owned(), known: names(pipelines.keys()) })?;
        let (app, filters) = (pipeline.app.clone(), pipeline.filters.clone());
        let filters = filters.iter().map(|f| self.make(name, f)).collect::<Result<Vec<_>, _>>()?;
        let known = names(self.applications.keys());
        let unknown = || PipelineError::UnknownApplication { pipeline: name.to_owned(), name: app.clone(), known };
        let application = self.applications.remove(&app).ok_or_else(unknown)?;
        Ok(Served { application: application.finished(), filters })
    }

    fn api(&self, served: Vec<Served>) -> Api {
        Api::new(served, Arc::clone(&self.deps.options), Arc::clone(&self.deps.entropy))
    }

    fn make(&self, pipeline: &str, name: &str) -> Result<Arc<dyn Filter>, PipelineError> {
        let factory = self.filters.get(name).ok_or_else(|| PipelineError::UnknownFilter {
            pipeline: pipeline.to_owned(),
            name: name.to_owned(),
            known: names(self.filters.keys()),
        })?;
        factory(&self.deps)
    }
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}
